"""Dagster's run launcher, which also knows whether the process of a run still lives.

Dagster's own learns of a worker's death from the code server that started it, if that server and the
database are there at that moment; otherwise the run stays ``started`` for good, and nobody asks for its
quarter again. Here each worker holds a ``flock`` until its last breath, and the daemon's monitoring
looks at it. Named in ``dagster.yaml``.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from ts_forecast.settings import Settings, load_settings

_KEPT_SECONDS = 86_400.0


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches as Dagster does; tells the monitoring which workers are dead."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run lives.

        One that holds no lock yet, or runs under another executor, counts as alive.
        """
        if worker_is_gone(load_settings(), run.run_id):
            return CheckRunHealthResult(WorkerStatus.FAILED, "its process has ended without a word")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def hold_run(settings: Settings, run_id: str) -> None:
    """Let this process be the worker of a run until it ends, however it ends.

    The file stays behind, unlocked; the next worker removes those of yesterday.
    """
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{run_id}.{os.getpid()}"
    # Never closed. Programs that this process starts do not inherit it.
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    # It bears its name from when it is held.
    draft.rename(_path(settings, run_id))
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS and not _is_held(path):
                path.unlink()


def worker_is_gone(settings: Settings, run_id: str) -> bool:
    """Whether a process of this host was the worker of the run and has ended."""
    path = _path(settings, run_id)
    try:
        return not _is_held(path)
    except FileNotFoundError:
        return False


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _folder(settings: Settings) -> Path:
    return settings.home / "locks" / "runs"


def _path(settings: Settings, run_id: str) -> Path:
    return _folder(settings) / f"{run_id}.lock"
