"""Training through Dagster and our executor, while its processes are killed one after another."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from sqlalchemy import Engine, text

from resources.device_locks import take_device
from resources.devices import find_devices
from resources.gpu_pool import GPU_POOL, ensure_pool_limits
from resources.instance import dagster_environment, prepare_dagster_home
from tests.end_to_end.problems import content, sales
from ts_forecast.db.database import open_database
from ts_forecast.settings import Settings, load_settings

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
# An epoch, and so a checkpoint, is one step.
MLP = {"max_steps": 100, "input_size": 14, "hidden_size": 8, "windows_batch_size": 32}
ONE_QUARTER = {"dagster/partition": "2023-04-01"}
THREE_QUARTERS = {
    "dagster/asset_partition_range_start": "2023-04-01",
    "dagster/asset_partition_range_end": "2023-10-01",
}
CODE = """
import sys
sys.path[:] = {path!r}
import dagster as dg, killed_fits_job
result = dg.execute_job(
    dg.build_reconstructable_job("killed_fits_job", "shop_job"),
    instance=dg.DagsterInstance.get(),
    run_config={config!r},
    tags={tags!r},
    asset_selection=[dg.AssetKey(["shop", "trained_models", "MLP"])],
)
sys.exit(not result.success)
"""


class Shop:
    """A deployment of one neural model, whose run is started in a process of its own."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, engine: Engine) -> None:
        self.settings, self.instance, self.engine = settings, instance, engine
        self.runs: list[subprocess.Popen[bytes]] = []

    def start(
        self, tags: dict[str, str] = ONE_QUARTER, **execution: Any
    ) -> subprocess.Popen[bytes]:
        config = {
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "execution": {"config": execution},
        }
        code = CODE.format(path=[str(HERE), *sys.path], config=config, tags=tags)
        with (self.settings.home / "output.log").open("ab") as output:
            run = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=REPOSITORY,
                stdout=output,
                stderr=output,
            )
        self.runs.append(run)
        return run

    @property
    def checkpoint(self) -> Path | None:
        return next((self.settings.home / "fits").glob("*/*/fit.ckpt"), None)

    def fitting(self, but: int = 0) -> psutil.Process:
        """The step's process, once it has written a checkpoint of its own."""

        def look() -> psutil.Process | None:
            for lock in (self.settings.home / "locks").glob("*.lock"):
                holder = (lock.read_text().split() or ["0"])[0]
                begun = self.checkpoint
                if int(holder) not in (0, but) and begun and psutil.pid_exists(int(holder)):
                    process = psutil.Process(int(holder))
                    if begun.stat().st_mtime > process.create_time():
                        return process
            return None

        return wait_for(look, 120)

    def holders(self) -> dict[str, int]:
        """Processes that have a device: the step's, and those beside it."""
        found = {}
        for lock in (self.settings.home / "locks").glob("*.lock"):
            pid, _, holder = lock.read_text().strip().partition(" ")
            if pid and psutil.pid_exists(int(pid)):
                found["beside" if holder.endswith("beside its own") else "step"] = int(pid)
        return found

    def statuses(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(
                connection.scalars(
                    text("SELECT status FROM runs WHERE source_name LIKE '%train' ORDER BY run_id")
                )
            )

    def resumed_at(self) -> int:
        with self.engine.connect() as connection:
            query = "SELECT max((metadata -> 'fit' ->> 'resumed_at')::int) FROM models"
            return int(connection.scalar(text(query)) or 0)

    def is_free(self) -> bool:
        """No pool slot is claimed, and no device is locked."""
        info = self.instance.event_log_storage.get_concurrency_info(GPU_POOL)
        if info.claimed_slots or info.pending_steps:
            return False
        busy: list[str] = []
        for device in find_devices(self.settings):
            try:
                with take_device(
                    self.settings.home / "locks", [device], holder="test", on_wait=_give_up
                ):
                    pass
            except TimeoutError:
                busy.append(device.identifier)
        return not busy

    @property
    def dagster_status(self) -> dg.DagsterRunStatus:
        return self.instance.get_runs(limit=1)[0].status


def _give_up() -> None:
    raise TimeoutError


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def define(settings: Settings, parameters: dict[str, Any]) -> None:
    changes = {"models": [{"model": "MLP", "parameters": parameters}], "levels": []}
    (settings.pipelines_dir / "shop.yaml").write_text(yaml.safe_dump(content(**changes)))


@pytest.fixture
def shop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    settings.pipelines_dir.mkdir(parents=True)
    define(settings, MLP)
    raw = settings.data_dir / "raw"
    raw.mkdir(parents=True)
    sales().to_csv(raw / "shop.csv", index=False)
    database = open_database(settings)
    for name, value in dagster_environment(settings, database).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TS_FORECAST_DEVICES", "fake-a")
    settings = load_settings()
    prepare_dagster_home(settings, database.dagster_url)
    with dg.DagsterInstance.get() as instance:
        ensure_pool_limits(instance, settings)
        made = Shop(settings, instance, database.engine)
        yield made
        for run in made.runs:
            if run.poll() is None:
                run.kill()
            run.wait()
    database.dispose()


@pytest.mark.long
def test_step_and_fork_server_killed__the_same_run_ends_with_the_model(shop: Shop) -> None:
    run = shop.start()
    first = shop.fitting()

    first.send_signal(signal.SIGSEGV)
    second = shop.fitting(but=first.pid)
    server = second.parent()
    assert server is not None and server.pid != run.pid
    server.kill()

    assert run.wait(timeout=150) == 0, (shop.settings.home / "output.log").read_text()[-3000:]
    assert shop.statuses() == ["killed", "killed", "completed"]
    assert shop.resumed_at() > 0
    assert shop.is_free()
    assert shop.checkpoint is None


def test_run_killed_then_cancelled__the_next_one_resumes(shop: Shop) -> None:
    killed = shop.start()
    first = shop.fitting()

    killed.kill()
    begun = time.monotonic()

    wait_for(shop.is_free, 5)
    wait_for(lambda: shop.dagster_status == dg.DagsterRunStatus.FAILURE, 5)
    wait_for(lambda: shop.statuses() == ["killed"], 5)
    assert time.monotonic() - begun < 5
    assert shop.checkpoint is not None

    cancelled = shop.start()
    shop.fitting(but=first.pid)
    begun = time.monotonic()
    cancelled.send_signal(signal.SIGINT)

    wait_for(shop.is_free, 5)
    assert time.monotonic() - begun < 5
    cancelled.wait(timeout=30)
    assert "running" not in shop.statuses()
    assert shop.instance.get_runs(limit=1)[0].is_finished

    assert shop.start().wait(timeout=150) == 0
    assert "running" not in shop.statuses()
    assert shop.statuses()[-1] == "completed"
    assert shop.resumed_at() > 0


@pytest.mark.long
def test_last_attempt_killed__no_row_stays_running(shop: Shop) -> None:
    run = shop.start(retries={"disabled": {}})

    shop.fitting().kill()

    wait_for(shop.is_free, 5)
    assert run.wait(timeout=30) == 1
    assert shop.statuses() == ["killed"]


@pytest.mark.long
def test_step_killed__with_a_process_beside_it__no_row_stays_running(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_FORECAST_DEVICES", "fake-a,fake-b")
    monkeypatch.setenv("PATIENCE_OF_STEPS", "0")
    ensure_pool_limits(shop.instance, load_settings())
    # A quarter takes longer than the other process's imports.
    define(shop.settings, {**MLP, "max_steps": 4000})
    run = shop.start(THREE_QUARTERS, retries={"disabled": {}})
    wait_for(lambda: len(shop.holders()) == 2 and shop.statuses() == ["running"] * 2, 120)
    pids = shop.holders()

    psutil.Process(pids["step"]).kill()

    wait_for(lambda: not psutil.pid_exists(pids["beside"]), 5)
    wait_for(shop.is_free, 5)
    assert run.wait(timeout=30) == 1
    assert shop.statuses() == ["killed", "killed"]

    assert shop.start(THREE_QUARTERS).wait(timeout=150) == 0
    assert sorted(shop.statuses()) == ["completed"] * 3 + ["killed"] * 2
    assert shop.resumed_at() > 0
    assert shop.checkpoint is None
