"""Dagster's run launcher, with workers that are born of the zygote and known to be alive or dead.

Dagster's own has its code server start a program for each run, which imports for seconds what the last
one imported. Here the worker is forked from the zygote (``zygote``) where one fits; otherwise it is
launched as Dagster does. Each worker holds a ``flock`` until its last breath: the daemon's monitoring
looks at it, and whoever ends a run finds the process by it. Dagster's own learns of a worker's death from
the code server that started it, if that server and the database are there at that moment; otherwise the
run stays ``started`` for good, and nobody asks for its quarter again.

Named in ``dagster.yaml``. The worker's own side is ``run_process``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path

from dagster import DagsterRun, DagsterRunStatus
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    WorkerStatus,
)
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value

from resources.preloads import process_environment, zygote_of
from resources.zygote import Born
from ts_forecast.errors import TsForecastError
from ts_forecast.settings import Settings, load_settings

_KEPT_SECONDS = 86_400.0
_WORKER = "resources.run_process"
READY = "ready"
# For the worker's first imports, a second of a core.
_READY_SECONDS = 20.0
_HELD_SECONDS = 5.0
# Who else reports the end of a run does so at once: its fork server, or Dagster.
_LAST_WORD_SECONDS = 5.0
_DEAD = "its process has ended without a word"
_held: set[Path] = set()
_log = logging.getLogger(__name__)


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches from the zygote or as Dagster does; tells the monitoring which workers are dead."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run lives.

        One that holds no lock yet, or runs under another executor, counts as alive.
        """
        if worker_is_gone(load_settings(), run.run_id):
            return CheckRunHealthResult(WorkerStatus.FAILED, _DEAD)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Have a process execute the run; returns when it is there.

        Raises:
            DagsterLaunchFailedError: there is neither a zygote nor a code server that can.
        """
        settings = load_settings()
        worker = self._born(settings, context.dagster_run)
        if worker is None:
            super().launch_run(context)
            return
        arguments = (context.dagster_run.run_id, worker)
        threading.Thread(target=self._watch, args=arguments, daemon=True).start()

    def terminate(self, run_id: str) -> bool:
        """Interrupt the process of a run; whether there is one."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        descriptor = _worker(load_settings(), run_id)
        if descriptor is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        try:
            self._instance.report_run_canceling(run)
            signal.pidfd_send_signal(descriptor, signal.SIGINT)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _born(self, settings: Settings, run: DagsterRun) -> Born | None:
        """A worker that has begun; None if no zygote is there that fits, or what it bore is not ready."""
        if run.job_code_origin is None:
            return None
        try:
            zygote = zygote_of(settings)
        except TsForecastError as error:
            _log.warning("Run %s is launched without a zygote: %s", run.run_id, error)
            return None
        environment = os.environ | process_environment(zygote.threads)
        arguments = ExecuteRunArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
        )
        ours, theirs = Pipe(duplex=True)
        with ours:
            with theirs:
                worker = zygote.bear(_WORKER, theirs.fileno(), environment)
            if worker is None:
                return None
            try:
                is_ready = ours.poll(_READY_SECONDS) and ours.recv() == READY
                if is_ready:
                    ours.send((run.run_id, serialize_value(arguments)))
            except (EOFError, OSError):
                is_ready = False
            if not is_ready:
                _log.warning("What the zygote bore for run %s did not get ready.", run.run_id)
                return None
            # It has begun. Whoever asks for this run from now on finds its process, or it has died.
            ours.poll(_HELD_SECONDS)
            return worker

    def _watch(self, run_id: str, worker: Born) -> None:
        """End the run if its process ends and nobody else says so.

        One that is cancelled before it has begun ends without a word of Dagster's. After a restart of the
        daemon the monitoring does this, later.
        """
        worker.wait()
        time.sleep(_LAST_WORD_SECONDS)
        try:
            run = self._instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                return
            if run.status == DagsterRunStatus.CANCELING:
                self._instance.report_run_canceled(run, f"The run was cancelled: {_DEAD}.")
            else:
                self._instance.report_run_failed(run, f"The run failed: {_DEAD}.")
        except Exception:  # noqa: BLE001 — a thread of the daemon; the database may be away
            _log.warning("Run %s may still stand as started.", run_id, exc_info=True)


def hold_run(settings: Settings, run_id: str) -> None:
    """Let this process be the worker of a run until it ends, however it ends; once is enough.

    The file stays behind, unlocked; the next worker removes those of yesterday.
    """
    path = _path(settings, run_id)
    if path in _held:
        return
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{run_id}.{os.getpid()}"
    # Never closed. Programs that this process starts do not inherit it.
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, f"{os.getpid()} {_pid_space()}".encode())
    # It bears its name from when it is held.
    draft.rename(path)
    _held.add(path)
    for other in folder.iterdir():
        with suppress(OSError):
            if other.stat().st_mtime < time.time() - _KEPT_SECONDS and not _is_held(other):
                other.unlink()


def worker_is_gone(settings: Settings, run_id: str) -> bool:
    """Whether a process of this host was the worker of the run and has ended."""
    path = _path(settings, run_id)
    try:
        return not _is_held(path)
    except FileNotFoundError:
        return False


def _worker(settings: Settings, run_id: str) -> int | None:
    """A pidfd of the process that holds a run; None if none does that can be reached from here."""
    path = _path(settings, run_id)
    try:
        pid, _, space = path.read_text().partition(" ")
        if not space or space != _pid_space():
            return None
        descriptor = os.pidfd_open(int(pid))
    except (AttributeError, OSError, ValueError):
        return None
    # Still held: so it is that process, and not one that got its number after it.
    with suppress(OSError):
        if _is_held(path):
            return descriptor
    os.close(descriptor)
    return None


def _pid_space() -> str:
    """Where a process id means one process: this kernel and container; empty on other systems."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _path(settings: Settings, run_id: str) -> Path:
    return settings.home / "locks" / "runs" / f"{run_id}.lock"
