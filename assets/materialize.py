"""Materialize quarters of a pipeline without the UI: ``python -m assets.materialize``.

One Dagster run over a range of partitions, executed by this process on the GPU executor, with a
progress bar. What the UI, its daemon and its backfills do is not repeated here; ``ts-forecast
materialize`` calls this module in a process of its own.
"""

import os
import threading
from typing import Annotated

import dagster as dg
import typer
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from assets.step import FIT_AT, QUARTER_DONE
from resources.devices import find_devices
from resources.gpu_pool import ensure_pool_limits
from resources.instance import dagster_environment, prepare_dagster_home
from ts_forecast.db.database import open_database
from ts_forecast.db.migrate import check_revision
from ts_forecast.errors import PipelineError, TsForecastError
from ts_forecast.logs.setup import install
from ts_forecast.operations.currency import is_current
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipelines
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings, load_settings

_POLL_SECONDS = 0.5
# The first is never on record; a person's word on the second is not for a repetition to overrule.
_UNFORCED = {"dataset_features", "champion"}


def pipeline_job(name: str) -> dg.JobDefinition:
    """The job of all assets of a pipeline, for processes that rebuild it by name."""
    from assets.definitions import defs, job_name

    return defs.resolve_job_def(job_name(name))


def materialize(
    pipeline: Pipeline,
    first: Quarter,
    last: Quarter,
    *,
    instance: dg.DagsterInstance,
    force: bool = False,
    console: Console | None = None,
) -> list[str]:
    """All assets of a pipeline over a range of quarters, in one run.

    Returns:
        One line for each failed step, with its reason; empty on success.
    """
    keys = asset_keys(pipeline)
    quarters = list(quarter_range(first, last))
    configured = [key for key in keys if key.path[-1] not in _UNFORCED]
    run_config = {
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {key.to_python_identifier(): {"config": {"force": force}} for key in configured},
    }
    follower = _Follower(instance, total=len(keys) * len(quarters), console=console)
    with follower:
        result = dg.execute_job(
            dg.build_reconstructable_job(
                "assets.materialize", "pipeline_job", reconstructable_args=(pipeline.name,)
            ),
            instance=instance,
            run_config=run_config,
            tags={
                ASSET_PARTITION_RANGE_START_TAG: first.key,
                ASSET_PARTITION_RANGE_END_TAG: last.key,
                "pipeline": pipeline.name,
                follower.tag: follower.value,
            },
            asset_selection=keys,
        )
    if result.success:
        return []
    return _reasons(instance, result.run_id)


class _Follower:
    """Draws progress from the run's event log while the main thread executes it."""

    tag = "ts_forecast/materialize"

    def __init__(
        self, instance: dg.DagsterInstance, *, total: int, console: Console | None
    ) -> None:
        self.value = f"{os.getpid()}-{threading.get_ident()}-{os.urandom(4).hex()}"
        self._instance = instance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
        )
        self._task = self._progress.add_task("starting", total=total)

    def __enter__(self) -> None:
        self._progress.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._progress.stop()

    def _follow(self) -> None:
        run_id, cursor = None, None
        while True:
            is_last = self._stop.wait(_POLL_SECONDS)
            if run_id is None:
                runs = self._instance.get_runs(dg.RunsFilter(tags={self.tag: self.value}), limit=1)
                run_id = runs[0].run_id if runs else None
            if run_id is not None:
                cursor = self._draw(run_id, cursor)
            if is_last:
                return

    def _draw(self, run_id: str, cursor: str | None) -> str:
        page = self._instance.get_records_for_run(run_id, cursor=cursor)
        for record in page.records:
            entry = record.event_log_entry
            if entry.is_dagster_event:
                continue
            step = (entry.step_key or "").split("__", 1)[-1].replace("__", "/")
            kind, _, rest = entry.user_message.partition(": ")
            if kind == QUARTER_DONE:
                self._progress.update(self._task, advance=1, description=f"{step:<32} {rest}")
            elif kind == FIT_AT:
                # Up to the first comma: the step, without loss and speed.
                where = rest.partition(",")[0]
                self._progress.update(self._task, description=f"{step:<32} {where}")
        return page.cursor


def _reasons(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Why each failed step failed, one line a step."""
    reasons = []
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        failure = entry.get_dagster_event().step_failure_data
        text = failure.user_failure_data.description if failure.user_failure_data else None
        if text is None and failure.error is not None:
            text = failure.error.message
        reasons.append(f"{entry.step_key}: {' '.join((text or 'no reason on record').split())}")
    if not reasons:
        entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        reasons = [" ".join(entry.user_message.split()) for entry in entries]
    return reasons or [f"run {run_id} did not succeed; see it in the UI"]


def main(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of a pipeline file.")],
    first: Annotated[str, typer.Option("--from", help="First quarter, e.g. 2024-Q1.")],
    last: Annotated[str, typer.Option("--to", help="Last quarter, included.")],
    force: Annotated[bool, typer.Option(help="Repeat work that is on record.")] = False,
) -> None:
    """Materialize all assets of PIPELINE from one quarter to another."""
    errors = Console(stderr=True)
    try:
        settings = load_settings()
        install(settings)
        pipeline = _pipeline(settings, name)
        quarters = Quarter.parse(first), Quarter.parse(last)
        database = open_database(settings)
        check_revision(database.engine)
        os.environ.update(dagster_environment(settings, database))
        prepare_dagster_home(settings, database.dagster_url)
        with dg.DagsterInstance.get() as instance:
            ensure_pool_limits(instance, settings)
            wanted = list(quarter_range(*quarters))
            if not force and _is_done(instance, database.engine, settings, pipeline, wanted):
                errors.print(f"{name}: {len(wanted)} quarters are as they would be made now")
                return
            reasons = materialize(pipeline, *quarters, instance=instance, force=force)
    except TsForecastError as error:
        errors.print(f"[red]{error}[/red]", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    for reason in reasons:
        errors.print(f"[red]{reason}[/red]", soft_wrap=True)
    if reasons:
        raise typer.Exit(1)


def _is_done(
    instance: dg.DagsterInstance,
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarters: list[Quarter],
) -> bool:
    """Whether Dagster shows every partition, and nothing about them has changed."""
    wanted = {quarter.key for quarter in quarters}
    shown = [wanted <= instance.get_materialized_partitions(key) for key in asset_keys(pipeline)]
    return all(shown) and is_current(
        engine, settings, pipeline, quarters, precision=find_devices(settings)[0].mixed
    )


def asset_keys(pipeline: Pipeline) -> list[dg.AssetKey]:
    """Keys of all assets of a pipeline."""
    models = [["trained_models", spec.name] for spec in pipeline.models]
    paths = [["datasets"], ["dataset_features"], *models, ["predictions"]]
    paths += [["metric_summaries"], ["champion"]]
    return [dg.AssetKey([pipeline.name, *path]) for path in paths]


def _pipeline(settings: Settings, name: str) -> Pipeline:
    pipelines = load_pipelines(settings.pipelines_dir)
    if name not in pipelines:
        raise PipelineError(
            f"There is no pipeline {name!r} in {settings.pipelines_dir}.",
            remedy=f"Its pipelines: {', '.join(pipelines) or 'none'}.",
        )
    return pipelines[name]


if __name__ == "__main__":
    typer.run(main)
