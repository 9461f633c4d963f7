"""A Ray cluster of one node on loopback, if need be with the dashboard that Ray's job submission needs."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from ts_forecast.cores import usable_cores

ADDRESS_VARIABLE = "RAY_ADDRESS"
DASHBOARD_VARIABLE = "BENCHMARK_RAY_DASHBOARD"
# Ray's HTTP servers ask for a token by default; nobody else reaches this one.
_AUTH_VARIABLE = "RAY_AUTH_MODE"
_START_SECONDS = 120.0


@contextmanager
def ray_on_this_host(*, with_dashboard: bool) -> Iterator[None]:
    """Start it, name it in the environment, end it.

    Args:
        with_dashboard: it needs ``ray[default]``.
    """
    port, dashboard = _free_port(), _free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", "--disable-usage-stats"]
    command += [
        f"--include-dashboard={str(with_dashboard).lower()}",
        f"--num-cpus={usable_cores()}",
    ]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    os.environ[_AUTH_VARIABLE] = "disabled"
    # Jobs are commands of this environment, which need not be the active one.
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    environment = {
        **os.environ,
        "PATH": programs,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    ray = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[ADDRESS_VARIABLE] = f"127.0.0.1:{port}"
    os.environ[DASHBOARD_VARIABLE] = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(dashboard if with_dashboard else port, with_dashboard, ray)
        yield
    finally:
        for name in (ADDRESS_VARIABLE, DASHBOARD_VARIABLE, _AUTH_VARIABLE):
            os.environ.pop(name)
        ray.send_signal(signal.SIGTERM)
        ray.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int, with_dashboard: bool, ray: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while ray.poll() is None and time.monotonic() < deadline:
        try:
            if with_dashboard:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=5).close()
            else:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    hint = "; is ray[default] installed?" if with_dashboard else ""
    raise RuntimeError(f"Ray does not answer at 127.0.0.1:{port}{hint}")
