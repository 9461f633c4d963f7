"""Ctrl-C on a server that trains: its runs end in order, at once, and none is taken for a running one."""

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


def test_server__ctrl_c_in_a_fit__ends_its_run_in_order(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    sales().to_csv(raw / "shop.csv", index=False)
    pipeline = content(models=[{"model": "MLP", "parameters": LONG}])
    with serving(tmp_path, {"shop": pipeline}, {"TS_FORECAST_SLOTS": "1"}) as deployment:
        zygotes = deployment.settings.home / "zygotes"
        wait_for(
            lambda: zygotes.is_dir() and any(not p.suffix for p in zygotes.iterdir()), deployment
        )
        assets = deployment.webserver.asset_keys("shop")
        deployment.webserver.launch(assets, ["2023-04-01"])
        wait_for(lambda: "running" in statuses(deployment, "runs", "status"), deployment)
        (worker,) = wait_for(lambda: workers(deployment), deployment)
        parent = worker.parent()
        assert parent is not None and "resources.zygote_process" in parent.cmdline()
        server = psutil.Process(deployment.process.pid)
        family = [*server.children(recursive=True), *worker.children(recursive=True)]

        begun = time.monotonic()
        deployment.process.send_signal(signal.SIGINT)
        deployment.process.wait(timeout=30)
        seconds = time.monotonic() - begun

        open_database(deployment.settings).dispose()
        print(f"ended within {seconds:.1f} s", statuses(deployment, "dagster.runs", "status"))
        _, alive = psutil.wait_procs(family, timeout=2)
        assert alive == []
        assert seconds < 15
        assert "running" not in statuses(deployment, "runs", "status")
        assert set(statuses(deployment, "dagster.runs", "status")) <= {"SUCCESS", "FAILURE"}


def workers(deployment: Deployment) -> list[psutil.Process]:
    """The processes of runs that are being worked on, once there is one."""
    folder = deployment.settings.home / "locks" / "runs"
    pids = [int(path.read_text().split()[0]) for path in folder.iterdir()]
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return found if len(found) == 1 else []
