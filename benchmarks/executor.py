"""How long a step waits for its process: ours against Dagster's executors.

``python -m benchmarks.executor --help``. Every executor runs the same chain of steps in one
instance on the embedded PostgreSQL; each step imports neuralforecast, as a training step must.
Reported are the median times from launch to start and from launch to imported, of the second and
later steps, and the ratios to ours. They grow with what else the host does: its load is printed.

The two on Ray share a cluster of one node that is started here. ``dagster_ray`` needs the extra
``benchmarks`` and is left out without it.
"""

import importlib.util
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.ray_on_this_host import DASHBOARD_VARIABLE, ray_on_this_host
from resources.gpu_executor import gpu_executor
from resources.gpu_pool import GPU_POOL, ensure_pool_limits
from resources.instance import dagster_environment, prepare_dagster_home
from resources.ray_executor import ray_executor
from ts_forecast.cores import usable_cores
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import stop_embedded
from ts_forecast.settings import load_settings

# Resolves how many steps the jobs below have, in this process and in those of the steps.
_STEPS_VARIABLE = "BENCHMARK_STEPS"


@dg.op(pool=GPU_POOL, ins={"before": dg.In(dg.Nothing)})
def training_step() -> None:
    """What every training step pays before it can train."""
    import neuralforecast  # noqa: F401


@dg.graph
def chain() -> None:
    """Steps one after another, so that none competes with another for cores."""
    before = training_step.alias("step_000")()
    for index in range(1, int(os.environ.get(_STEPS_VARIABLE, "20"))):
        before = training_step.alias(f"step_{index:03}")(before)


def _multiprocess(**start_method: object) -> dg.ExecutorDefinition:
    return dg.multiprocess_executor.configured(
        {"max_concurrent": 1, "start_method": start_method},
        name=f"{next(iter(start_method))}_chain",
    )


def ours() -> dg.JobDefinition:
    """The chain on our executor."""
    return chain.to_job(name="ours", executor_def=gpu_executor)


def spawn() -> dg.JobDefinition:
    """The chain on Dagster's default executor."""
    return chain.to_job(name="spawn", executor_def=_multiprocess(spawn={}))


def forkserver() -> dg.JobDefinition:
    """The chain on Dagster's multiprocess executor with its fork server."""
    return chain.to_job(name="forkserver", executor_def=_multiprocess(forkserver={}))


def in_process() -> dg.JobDefinition:
    """The chain in the run's own process."""
    return chain.to_job(name="in_process", executor_def=dg.in_process_executor)


def ray() -> dg.JobDefinition:
    """The chain on our executor for Ray."""
    return chain.to_job(name="ray", executor_def=ray_executor)


def dagster_ray() -> dg.JobDefinition:
    """The chain on dagster-ray's executor, each step a Ray job."""
    import dagster_ray as library

    address = {"ray": {"address": os.environ.get(DASHBOARD_VARIABLE)}}
    executor = library.ray_executor.configured(address, name="dagster_ray_chain")
    return chain.to_job(name="dagster_ray", executor_def=executor)


_ON_RAY = ("ray", "dagster_ray")
_LABELS = {
    "ours": "ours (gpu_executor)",
    "spawn": "multiprocess, spawn (Dagster's default)",
    "forkserver": "multiprocess, forkserver",
    "in_process": "in_process",
    "ray": "ours on Ray (ray_executor)",
    "dagster_ray": "dagster-ray, one local node",
}


def measure(instance: dg.DagsterInstance, name: str) -> tuple[list[float], list[float]]:
    """Run one chain.

    Returns:
        For every step but the first, in order, seconds from launch to start and from launch to
        imported. Launch is when the step before has ended: not all executors report their own.
    """
    from benchmarks import executor

    job = dg.reconstructable(getattr(executor, name))
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = dg.execute_job(job, instance, run_config=quiet)
    times: dict[str, dict[str, float]] = {}
    for entry in instance.all_logs(result.run_id):
        if entry.is_dagster_event and entry.step_key:
            kind = entry.get_dagster_event().event_type_value
            times.setdefault(entry.step_key, {})[kind] = entry.timestamp
    if not result.success:
        raise typer.Exit(1)
    steps = [times[key] for key in sorted(times)]
    launched = [
        step.get("STEP_WORKER_STARTING", before["STEP_SUCCESS"])
        for before, step in zip(steps, steps[1:], strict=False)
    ]
    starts = [step["STEP_START"] - at for step, at in zip(steps[1:], launched, strict=True)]
    ready = [step["STEP_SUCCESS"] - at for step, at in zip(steps[1:], launched, strict=True)]
    return starts, ready


def main(
    steps: Annotated[int, typer.Option(min=3, help="Steps of each chain.")] = 20,
    executors: Annotated[
        str, typer.Option(help="Which, separated by commas: " + ", ".join(_LABELS) + ".")
    ] = ",".join(_LABELS),
) -> None:
    """Measure launch-to-start of each executor, and its ratio to ours."""
    names = [name.strip() for name in executors.split(",")]
    if unknown := [name for name in names if name not in _LABELS]:
        raise typer.BadParameter(f"unknown executor {', '.join(unknown)}")
    if "dagster_ray" in names and importlib.util.find_spec("dagster_ray") is None:
        names.remove("dagster_ray")
        Console(stderr=True).print(
            "dagster_ray is left out: pip install 'ts-forecast\\[benchmarks]'"
        )
    os.environ[_STEPS_VARIABLE] = str(steps)
    with tempfile.TemporaryDirectory() as home:
        os.environ["TS_FORECAST_HOME"] = home
        os.environ.pop("DATABASE_URL", None)
        settings = load_settings()
        database = open_database(settings)
        os.environ.update(dagster_environment(settings, database))
        prepare_dagster_home(settings, database.dagster_url)
        try:
            with ExitStack() as stack:
                instance = stack.enter_context(
                    dg.DagsterInstance.from_config(str(Path(home) / "dagster"))
                )
                if set(names) & set(_ON_RAY):
                    stack.enter_context(ray_on_this_host(with_dashboard="dagster_ray" in names))
                ensure_pool_limits(instance, settings)
                figures = {name: measure(instance, name) for name in names}
        finally:
            database.engine.dispose()
            stop_embedded(settings)
    _print(figures, steps)


def _print(figures: dict[str, tuple[list[float], list[float]]], steps: int) -> None:
    load = os.getloadavg()[0]
    table = Table(
        title=f"Second to last of {steps} steps, one after another: median (worst), s; "
        f"load {load:.1f} on {usable_cores()} cores"
    )
    for column in ("executor", "launch to start", "ratio", "launch to imported", "ratio"):
        table.add_column(column, justify="left" if column == "executor" else "right")
    reference = figures.get("ours") or next(iter(figures.values()))
    for name, columns in figures.items():
        cells = [_LABELS[name]]
        for values, base in zip(columns, reference, strict=True):
            median = statistics.median(values)
            cells += [
                f"{median:.3f} ({max(values):.3f})",
                f"{median / statistics.median(base):.1f}×",
            ]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
