"""A real instance on PostgreSQL with two fake devices, and runs in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.gpu_pool import ensure_pool_limits
from resources.instance import dagster_environment, prepare_dagster_home
from resources.preloads import ZYGOTE_LIBRARIES, process_environment
from resources.zygote import Zygote
from ts_forecast.cores import threads_of_each
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import stop_embedded
from ts_forecast.settings import load_settings

HERE = Path(__file__).parent
_DEVICES = ("fake-a", "fake-b")
# Test jobs are found by a module name, as Dagster and the forked steps import them.
sys.path.insert(0, str(HERE))

from executor_harness import Deployment  # noqa: E402


@pytest.fixture(scope="session")
def zygotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a zygote that fits the deployments of all modules: it imports for all their runs."""
    folder = tmp_path_factory.mktemp("zygotes")
    zygote = Zygote(folder, threads_of_each(len(_DEVICES)))
    early = {
        "PYTHONHASHSEED": "0",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        **process_environment(zygote.threads),
    }
    process = subprocess.Popen(zygote.command(ZYGOTE_LIBRARIES), env=os.environ | early)
    yield folder
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, zygotes: Path) -> Iterator[Deployment]:
    """An embedded server, an instance of the repository's dagster.yaml, and their environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATABASE_URL", "TS_FORECAST_SLOTS"):
            patch.delenv(name, raising=False)
        patch.setenv("TS_FORECAST_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TS_FORECAST_DEVICES", ",".join(_DEVICES))
        settings = load_settings()
        settings.home.joinpath("zygotes").symlink_to(zygotes)
        database = open_database(settings)
        for name, value in dagster_environment(settings, database).items():
            patch.setenv(name, value)
        prepare_dagster_home(settings, database.dagster_url)
        with dg.DagsterInstance.get() as instance:
            ensure_pool_limits(instance, settings)
            yield Deployment(instance, settings, dict(os.environ))
        database.engine.dispose()
        stop_embedded(settings)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the steps of a test write what they saw."""
    return tmp_path / "notes.jsonl"


@pytest.fixture
def start_run(deployment: Deployment, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a run in a process of its own, which the test may kill; ended after the test."""
    processes: list[subprocess.Popen] = []

    def start(name: str, run_config: Mapping[str, Any]) -> subprocess.Popen:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "import dagster as dg, executor_jobs, json; "
            f"job = dg.reconstructable(executor_jobs.{name}); "
            f"config = json.loads({json.dumps(json.dumps(run_config))}); "
            "dg.execute_job(job, dg.DagsterInstance.get(), run_config=config)"
        )
        with (tmp_path / f"run-{len(processes)}.log").open("w") as log:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
