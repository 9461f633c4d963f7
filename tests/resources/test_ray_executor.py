"""The executor on Ray: a cluster of two nodes, started here, and real runs on it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from executor_harness import Deployment, config_for, is_running, read_notes, wait_for
from sqlalchemy import text

from resources.gpu_pool import GPU_POOL, ensure_pool_limits
from resources.ray_cluster import RayCluster, Request
from resources.ray_executor import REQUEST_TAG, executor_of, request_tags
from tests.end_to_end.problems import content, sales
from ts_forecast.db import migrate
from ts_forecast.db.engine import create_engine
from ts_forecast.errors import SettingsError
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]
FILLS = tuple(f"fill_{index}" for index in range(4))
# Ray takes 127.0.0.1 for the host's address on the network, unless it may have no other hosts.
LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
SMALL = {"max_steps": 2, "input_size": 14, "windows_batch_size": 32}
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)


@pytest.fixture(scope="module")
def cluster(deployment: Deployment) -> Iterator[str]:
    """Two nodes of two CPUs each, on loopback; nothing of a deployment is in their environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TS_FORECAST_", "DAGSTER_", "DATABASE_", "RAY_"))
    }
    nodes = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))],
        cwd=REPOSITORY,
        env={**environment, **dict([LOOPBACK]), "RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with nodes:
        assert nodes.stdin is not None and nodes.stdout is not None
        address = nodes.stdout.readline().strip()
        assert address.startswith("127.0.0.1:")
        family = psutil.Process(nodes.pid).children(recursive=True)
        yield address
        nodes.stdin.close()
    for process in family:
        if process.is_running():
            process.kill()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture
def on_cluster(cluster: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The settings of a deployment on that cluster, for drivers on loopback."""
    monkeypatch.setenv(*LOOPBACK)
    monkeypatch.setenv("TS_FORECAST_EXECUTOR", "ray")
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.setenv("RAY_NAMESPACE", "tests")
    return cluster


def test_run__more_steps_than_fit__uses_both_nodes_and_never_too_much(
    deployment: Deployment,
    on_cluster: str,
    notes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TS_FORECAST_SECRET_KEYS", "a key")

    run = start(tmp_path, "four_on_two_nodes", config_for(notes, *FILLS, seconds=0.5))

    assert run.wait(timeout=250) == 0, (tmp_path / "run.log").read_text()[-3000:]
    assert deployment.instance.get_runs(limit=1)[0].status == dg.DagsterRunStatus.SUCCESS
    placed = {note["pid"]: note["node"] for note in read_notes(notes) if note["what"] == "placed"}
    assert len(set(placed.values())) == 2
    busy: set[str] = set()
    marks = [note for note in read_notes(notes) if note["what"] in ("start", "end")]
    for note in sorted(marks, key=lambda note: note["at"]):
        node = placed[note["pid"]]
        if note["what"] == "start":
            assert node not in busy
            busy.add(node)
            assert (note["omp"], note["device"], note["hash_seed"]) == ("2", "", "0")
        else:
            busy.remove(node)
    assert {n["secret"] for n in read_notes(notes) if n["what"] == "placed"} == {"a key"}


def notes_of(notes: Path, what: str) -> list[dict[str, Any]]:
    return [note for note in read_notes(notes) if note["what"] == what]


def start(tmp_path: Path, name: str, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A run in a process of its own, which may be ended."""
    config = {key: value for key, value in config.items() if key != "execution"}
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import dagster as dg, ray_jobs; "
        f"dg.execute_job(dg.reconstructable(ray_jobs.{name}), dg.DagsterInstance.get(), "
        f"run_config={config!r})"
    )
    with (tmp_path / "run.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_run__ended__ends_its_steps_within_5_s(
    deployment: Deployment,
    on_cluster: str,
    notes: Path,
    tmp_path: Path,
    signal_number: signal.Signals,
) -> None:
    fills = FILLS[:3]
    run = start(tmp_path, "three_on_two_nodes", config_for(notes, *fills, seconds=120))
    begun = wait_for(lambda: len(seen := notes_of(notes, "start")) == 2 and seen, seconds=200)
    last = deployment.instance.get_runs(limit=1)[0]

    run.send_signal(signal_number)

    wait_for(lambda: not any(is_running(note["pid"]) for note in begun), seconds=5)
    run.wait(timeout=15)
    assert len(notes_of(notes, "start")) == 2
    if signal_number == signal.SIGKILL:
        return
    assert len(notes_of(notes, "DagsterExecutionInterruptedError")) == 2
    assert deployment.instance.get_runs(limit=1)[0].is_finished
    messages = [entry.message for entry in deployment.instance.all_logs(last.run_id)]
    assert any("waits until a node with 1 CPU and 1 GPU joins" in said for said in messages)


def places(folder: Path, url: str) -> dict[str, str]:
    return {
        "TS_FORECAST_HOME": str(folder / "home"),
        "TS_FORECAST_PIPELINES": str(folder / "pipelines"),
        "DATA_DIR": str(folder / "data"),
        "MODEL_DIR": str(folder / "models"),
        "OUTPUT_DIR": str(folder / "outputs"),
        "LOG_DIR": str(folder / "logs"),
        "DATABASE_URL": url.replace("+psycopg", ""),
        "TS_FORECAST_DEVICES": "",
        "TS_FORECAST_SLOTS": str(os.cpu_count()),
    }


def materialize(folder: Path, url: str, **environment: str) -> subprocess.Popen[bytes]:
    """The main job of one quarter, as ``ts-forecast materialize`` runs it."""
    (folder / "pipelines").mkdir(parents=True)
    (folder / "data" / "raw").mkdir(parents=True)
    models = [{"model": "MLP", "parameters": SMALL}, "SeasonalNaive"]
    problem = content(models=models, quarters_per_run=1)
    (folder / "pipelines" / "shop.yaml").write_text(yaml.safe_dump(problem), encoding="utf-8")
    sales().to_csv(folder / "data" / "raw" / "shop.csv", index=False)
    command = [sys.executable, "-m", "assets.materialize", "shop"]
    with (folder / "output.log").open("wb") as output:
        return subprocess.Popen(
            [*command, "--from", "2023-Q2", "--to", "2023-Q2"],
            cwd=REPOSITORY,
            env={**os.environ, **places(folder, url), **environment},
            stdout=output,
            stderr=output,
        )


TABLES = {
    "predictions": "SELECT m.model_name, unique_id, prediction_date, horizon, predicted_value, "
    "lower_bound, upper_bound, actual_value, quantiles FROM predictions "
    "JOIN models m USING (model_id) ORDER BY 1, 2, 3, 4",
    "metric_summaries": "SELECT m.model_name, s.metric_name, s.horizon_bucket, s.mean_value, "
    "s.median_value, s.std_value, s.min_value, s.max_value, s.skill, s.sample_count "
    "FROM metric_summaries s JOIN models m USING (model_id) ORDER BY 1, 2, 3",
    # That of a slice names its models by their numbers, which are of whoever is trained first.
    "runs": "SELECT run_name, status, CASE tags->>'kind' WHEN 'train' THEN run_fingerprint END "
    "FROM runs ORDER BY 1, 2, 3",
    "datasets": "SELECT dataset_name, file_hash, num_rows FROM datasets "
    "WHERE quarter_start IS NOT NULL ORDER BY 1",
}


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            name: [tuple(row) for row in connection.execute(text(query))]
            for name, query in TABLES.items()
        }
    engine.dispose()
    return found


@pytest.mark.long
def test_materialize__on_two_nodes__makes_the_rows_of_the_default_executor(
    cluster: str,
    database_url: str,
    empty_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = create_engine(empty_database_url)
    migrate.upgrade(engine)
    engine.dispose()

    here = materialize(tmp_path / "here", empty_database_url)
    monkeypatch.setenv(*LOOPBACK)
    there = materialize(
        tmp_path / "there", database_url, TS_FORECAST_EXECUTOR="ray", RAY_ADDRESS=cluster
    )

    try:
        for run, name in ((here, "here"), (there, "there")):
            log = tmp_path / name / "output.log"
            assert run.wait(timeout=270) == 0, log.read_text()[-3000:]
    finally:
        for run in (here, there):
            run.kill()
            run.wait()
    ours, rays = rows(empty_database_url), rows(database_url)
    assert all(ours.values())
    assert rays == ours


@pytest.mark.long
def test_run__without_an_address__has_a_ray_of_its_own_and_retries_a_step_that_died(
    deployment: Deployment, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_FORECAST_EXECUTOR", "ray")
    run = start(tmp_path, "crashing_once", config_for(notes, "crash_once"))
    wait_for(lambda: read_notes(notes), seconds=200)
    family = psutil.Process(run.pid).children(recursive=True)

    assert run.wait(timeout=200) == 0, (tmp_path / "run.log").read_text()[-3000:]
    assert len(read_notes(notes)) == 2
    assert family
    wait_for(lambda: not any(is_running(process.pid) for process in family), seconds=15)
    last = deployment.instance.get_runs(limit=1)[0]
    (entry,) = deployment.instance.all_logs(
        last.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY
    )
    assert entry.dagster_event is not None
    error = entry.dagster_event.step_retry_data.error
    assert error is not None and "or the node that it ran on, died before it" in error.message


def test_connect__nobody_at_the_address__says_so_at_once() -> None:
    with pytest.raises(SettingsError, match=r"The Ray cluster at 127\.0\.0\.1:1 does not answer"):
        RayCluster(Settings(_env_file=None, ray_address="127.0.0.1:1")).connect()


def test_connect__nodes_elsewhere__need_a_database_that_they_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [{"NodeManagerAddress": "192.0.2.77"}]
    monkeypatch.setattr("resources.ray_cluster._nodes", lambda: nodes)
    monkeypatch.delenv("DATABASE_URL", raising=False)

    with pytest.raises(SettingsError, match=r"192\.0\.2\.77 cannot reach the embedded"):
        RayCluster(Settings(_env_file=None))._check_database()


def test_executor_of__extra_absent__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(_env_file=None, executor="ray")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(SettingsError, match=r"ts-forecast\[ray\]"):
        executor_of(settings)
    assert executor_of(Settings(_env_file=None, executor="local")).name == "gpu_executor"


def test_request_tags__neural_steps_alone__get_the_gpu() -> None:
    changes = {"resources": {"num_cpus": 3, "num_gpus": 0.5}, "name": "shop"}
    pipeline = parse_pipeline(content(**changes), origin="here")

    assert request_tags(pipeline, is_neural=True)[REQUEST_TAG] == '{"num_cpus": 3, "num_gpus": 0.5}'
    assert request_tags(pipeline, is_neural=False)[REQUEST_TAG] == '{"num_cpus": 3, "num_gpus": 0}'


@pytest.mark.parametrize(
    ("node", "fits"),
    [({"CPU": 2.0, "GPU": 1.0}, True), ({"CPU": 1.0, "GPU": 1.0}, False), ({"CPU": 4.0}, False)],
)
def test_request__fits__needs_both(node: dict[str, float], fits: bool) -> None:
    assert Request(num_cpus=2, num_gpus=1).fits(node) is fits


def test_ensure_pool_limits__on_a_cluster__leaves_the_waiting_to_ray(
    deployment: Deployment,
) -> None:
    storage = deployment.instance.event_log_storage
    try:
        ensure_pool_limits(
            deployment.instance, Settings(_env_file=None, executor="ray", ray_address="there:1")
        )
        assert storage.get_concurrency_info(GPU_POOL).slot_count == 1000
    finally:
        assert ensure_pool_limits(deployment.instance, deployment.settings) == 2
