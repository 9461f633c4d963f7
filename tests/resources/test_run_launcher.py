"""Whether a run's worker lives, however it ended; and what the monitoring makes of one that does not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from executor_harness import Deployment

from resources.run_launcher import WatchedRunLauncher, hold_run, worker_is_gone
from ts_forecast.settings import Settings

HOLD = """
import sys, time
from pathlib import Path
from resources.run_launcher import hold_run
from ts_forecast.settings import Settings
hold_run(Settings(_env_file=None, home=Path(sys.argv[1])), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


def worker(home: Path, run_id: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home), run_id], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_worker_is_gone__alive_killed_and_unknown(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path)
    unknown = worker_is_gone(settings, "one")
    process = worker(tmp_path, "one")
    try:
        alive = worker_is_gone(settings, "one")
    finally:
        end(process)

    assert (unknown, alive, worker_is_gone(settings, "one")) == (False, False, True)


def test_hold_run__yesterdays_files__are_removed_unless_held(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path)
    process = worker(tmp_path, "long")
    try:
        end(worker(tmp_path, "ended"))
        end(worker(tmp_path, "today"))
        yesterday = (time.time() - 2 * 86_400,) * 2
        for name in ("long", "ended"):
            os.utime(tmp_path / "locks" / "runs" / f"{name}.lock", yesterday)
        hold_run(settings, "new")
    finally:
        end(process)

    left = {path.stem for path in (tmp_path / "locks" / "runs").iterdir()}
    assert left == {"long", "today", "new"}


def test_monitoring__worker_that_died_unheard__fails_its_run(deployment: Deployment) -> None:
    instance = deployment.instance
    assert isinstance(instance.run_launcher, WatchedRunLauncher)
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)

    def monitor() -> dg.DagsterRunStatus:
        record = instance.get_run_record_by_id(run.run_id)
        assert record is not None
        monitor_started_run(instance, None, record, logging.getLogger(__name__))  # type: ignore[arg-type]
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    process = worker(deployment.settings.home, run.run_id)
    try:
        while_it_lives = monitor()
        healthy = instance.run_launcher.check_run_worker_health(run).status
    finally:
        end(process)

    assert (while_it_lives, healthy) == (dg.DagsterRunStatus.STARTED, WorkerStatus.RUNNING)
    assert monitor() == dg.DagsterRunStatus.FAILURE
