"""A fit that is cancelled, and a server that is: runs end in order, at once, and none is taken to run."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.problems import content, sales
from tests.end_to_end.serving import Deployment, serving
from ts_forecast.db.database import open_database

pytestmark = pytest.mark.timeout(300)
CANCEL = "mutation Cancel($id: String!) { terminateRun(runId: $id) { __typename } }"
# For hours, if it is let.
LONG = {"max_steps": 1_000_000, "input_size": 14, "hidden_size": 8, "windows_batch_size": 32}


def statuses(deployment: Deployment, table: str, status: str) -> list[Any]:
    return [row[0] for row in deployment.rows(f"SELECT {status} FROM {table}")]


def wait_for(found: Any, deployment: Deployment, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, deployment.tail()
        time.sleep(0.3)
    return value


def test_server__run_cancelled_then_ctrl_c_in_a_fit__both_end_in_order(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    sales().to_csv(raw / "shop.csv", index=False)
    pipeline = content(models=[{"model": "MLP", "parameters": LONG}])
    with serving(tmp_path, {"shop": pipeline}, {"TS_FORECAST_SLOTS": "1"}) as deployment:
        zygotes = deployment.settings.home / "zygotes"
        wait_for(
            lambda: zygotes.is_dir() and any(not p.suffix for p in zygotes.iterdir()), deployment
        )
        run_id, worker = begin_fit(deployment)
        parent = worker.parent()
        assert parent is not None and "resources.zygote_process" in parent.cmdline()

        # What the button in the UI does.
        begun = time.monotonic()
        answer = deployment.webserver.query(CANCEL, id=run_id)
        assert answer["terminateRun"]["__typename"] == "TerminateRunSuccess"
        wait_for(lambda: "CANCELED" in statuses(deployment, "dagster.runs", "status"), deployment)
        wait_for(lambda: "running" not in statuses(deployment, "runs", "status"), deployment)
        slots = "SELECT count(*) FROM dagster.concurrency_slots WHERE run_id IS NOT NULL"
        wait_for(lambda: deployment.rows(slots)[0][0] == 0, deployment)
        wait_for(lambda: not worker.is_running(), deployment)
        assert time.monotonic() - begun < 5

        _, worker = begin_fit(deployment)
        server = psutil.Process(deployment.process.pid)
        family = [*server.children(recursive=True), *worker.children(recursive=True)]
        begun = time.monotonic()
        deployment.process.send_signal(signal.SIGINT)
        deployment.process.wait(timeout=30)
        seconds = time.monotonic() - begun

        # It went with the server; what it holds is looked at.
        open_database(deployment.settings).dispose()
        _, alive = psutil.wait_procs(family, timeout=2)
        assert alive == []
        assert seconds < 15
        assert "running" not in statuses(deployment, "runs", "status")
        ended = set(statuses(deployment, "dagster.runs", "status"))
        assert ended == {"SUCCESS", "CANCELED", "FAILURE"}


def begin_fit(deployment: Deployment) -> tuple[str, psutil.Process]:
    """Launch a backfill and wait until it fits: its run and that run's process."""
    deployment.webserver.launch(deployment.webserver.asset_keys("shop"), ["2023-04-01"])
    wait_for(lambda: "running" in statuses(deployment, "runs", "status"), deployment)
    ((run_id, worker),) = wait_for(lambda: workers(deployment), deployment)
    return run_id, worker


def workers(deployment: Deployment) -> list[tuple[str, psutil.Process]]:
    """The run that is being worked on and its process, once there is one alone."""
    folder = deployment.settings.home / "locks" / "runs"
    pids = {path.stem: int(path.read_text().split()[0]) for path in folder.iterdir()}
    found = [
        (run, psutil.Process(pid))
        for run, pid in pids.items()
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]
    return found if len(found) == 1 else []
