"""A Ray cluster of two nodes on loopback, until its standard input ends: ``python ray_nodes.py``.

In a process of its own, so that the tests' process imports no Ray and all of it can be ended by PID.
"""

import sys

NODE = {
    "node_ip_address": "127.0.0.1",
    "num_cpus": 2,
    "num_gpus": 0,
    "object_store_memory": 80 * 2**20,
}


def main() -> None:
    """Start it, say where it is, wait, end it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
