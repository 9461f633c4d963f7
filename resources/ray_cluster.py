"""A run's connection to Ray: joining a cluster or starting one, and steps as Ray tasks.

Ray is imported when a run connects, never before. It knows nothing of Dagster; which step asks for
what, and what its end means, is ``ray_executor``'s.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resources.preloads import process_environment
from ts_forecast.cores import usable_cores
from ts_forecast.errors import SettingsError
from ts_forecast.settings import Settings, variable_names

_KILL_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
# What a step reads besides our settings: Dagster's instance, and how object stores are reached.
_PREFIXES = ("DAGSTER_", "AWS_", "FSSPEC_")


@dataclass(frozen=True)
class Request:
    """What a task asks for; Ray starts it where that is free."""

    num_cpus: float = 1
    num_gpus: float = 0

    def __str__(self) -> str:
        return f"{self.num_cpus:g} CPU and {self.num_gpus:g} GPU"

    def fits(self, resources: Mapping[str, float]) -> bool:
        """Whether a node with these resources could run it, if it had nothing else to do."""
        has_cpus = resources.get("CPU", 0) >= self.num_cpus
        return has_cpus and resources.get("GPU", 0) >= self.num_gpus


def require_ray() -> None:
    """Refuse where Ray is not installed, without importing it.

    Raises:
        SettingsError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(
            "TS_FORECAST_EXECUTOR=ray needs Ray, which is not installed.",
            remedy="pip install -c constraints.txt 'ts-forecast[ray]', or unset it.",
        )


@dataclass
class RayCluster:
    """One connection; Ray allows one in a process.

    Attributes:
        settings: say which cluster, and in which namespace.
    """

    settings: Settings
    _tasks: list[Any] = field(default_factory=list, init=False)

    def connect(self) -> None:
        """Join the cluster of RAY_ADDRESS, or start a Ray of this process's own.

        Raises:
            SettingsError: Ray is absent, does not answer, or has nodes that cannot reach the database.
        """
        require_ray()
        # Ray asks for this once, when it is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        address = self.settings.ray_address
        own = {
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
        try:
            _look_for_somebody_at(address)
            with _signals_kept():
                ray.init(
                    address or "local",
                    namespace=self.settings.ray_namespace,
                    # Visible on Ray's dashboard: nothing secret. That goes with each task.
                    runtime_env={"env_vars": process_environment(threads=1)},
                    configure_logging=False,
                    log_to_driver=False,
                    **({} if address else own),
                )
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            where = f"The Ray cluster at {address}" if address else "A Ray of this host's own"
            raise SettingsError(
                f"{where} does not answer: {reason}",
                remedy="Correct RAY_ADDRESS, or see with `ray status` whether it runs.",
            ) from error
        self._check_database()

    def _check_database(self) -> None:
        import ray

        if self.settings.database_url is not None:
            return
        here = ray.util.get_node_ip_address()
        others = sorted({node["NodeManagerAddress"] for node in _nodes()} - {here})
        if others:
            self.close(grace_seconds=0)
            raise SettingsError(
                f"The Ray nodes {', '.join(others)} cannot reach the embedded PostgreSQL of {here}.",
                remedy="Set DATABASE_URL to a server that they can reach.",
            )

    def can_ever_run(self, request: Request) -> bool:
        """Whether any node that the cluster has now is large enough."""
        return any(request.fits(node["Resources"]) for node in _nodes())

    def submit(
        self, function: Callable[..., None], arguments: Sequence[Any], request: Request, name: str
    ) -> Any:
        """Have a worker of the cluster call a function as soon as one has room.

        Processes that had no GPU are used again, so that later tasks find their imports done; one
        that had a GPU ends with its task, and gives the memory back. Nothing is repeated by Ray.

        Args:
            function: of a module that the nodes can import.
            arguments: for it, after the environment of this deployment and the path of its modules.
            request: what it asks for.
            name: what Ray calls it.
        """
        import ray

        task = ray.remote(max_calls=1 if request.num_gpus else 0)(function).options(
            name=name,
            num_cpus=request.num_cpus,
            num_gpus=request.num_gpus,
            max_retries=0,
        )
        reference = task.remote(_environment(), list(sys.path), *arguments)
        self._tasks.append(reference)
        return reference

    def ended(self, reference: Any) -> str | None:
        """How a task ended, in words; None while it runs or waits."""
        import ray

        done, _ = ray.wait([reference], timeout=0)
        if not done:
            return None
        try:
            ray.get(reference)
        except ray.exceptions.OutOfMemoryError:
            return "Ray killed its process, as its node ran out of memory,"
        except ray.exceptions.TaskCancelledError:
            return "it was cancelled"
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
            return "its process, or the node that it ran on, died"
        except ray.exceptions.RayTaskError as error:
            return f"it ended with {type(error.cause).__name__}: {_in_one_line(error.cause)},"
        except ray.exceptions.RayError as error:
            return f"Ray lost it ({type(error).__name__}: {_in_one_line(error)})"
        return "its process was done with it"

    def interrupt(self, reference: Any) -> None:
        """Raise KeyboardInterrupt in a task that runs; take one that waits off the queue."""
        import ray

        ray.cancel(reference, recursive=True)

    def close(self, grace_seconds: float) -> None:
        """Let the tasks end, kill those that outstay the grace, and leave (or end) the cluster."""
        import ray

        if not ray.is_initialized():
            return
        try:
            for reference in self._left(grace_seconds):
                ray.cancel(reference, force=True)
            self._left(_KILL_SECONDS)
        finally:
            self._tasks.clear()
            with _signals_kept():
                ray.shutdown()

    def _left(self, seconds: float) -> list[Any]:
        import ray

        if not self._tasks:
            return []
        _, left = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=seconds)
        return list(left)


def _look_for_somebody_at(address: str | None) -> None:
    """Fail within seconds where nobody listens: Ray itself tries for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _environment() -> dict[str, str]:
    """What a step must find in its environment, passwords among it: goes to no other place."""
    known = variable_names()
    return {
        name: value
        for name, value in os.environ.items()
        if (name in known or name.startswith(_PREFIXES)) and not name.startswith("RAY_")
    }


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; Dagster's run worker has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
