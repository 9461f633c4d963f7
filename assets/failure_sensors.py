"""Who hears of failed runs and failed checks: ``system_logs``, and the webhook where one is set.

Both sensors run from the first start on, for a deployment that is left alone. They report and change
nothing. What is written is ``ts_forecast.logs.failures``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import dagster as dg
from dagster import DagsterEventType, EventRecordsFilter

from assets.step import JOB_PREFIX
from ts_forecast.db.database import open_database
from ts_forecast.errors import TsForecastError
from ts_forecast.logs.failures import Failure, store_failures
from ts_forecast.logs.masking import Masker
from ts_forecast.logs.webhook import Webhook
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

_EVENTS_PER_TICK = 200
_LINES_PER_MESSAGE = 20
_PARTITION = "dagster/partition"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def build_failure_sensors(
    settings: Settings, pipelines: Collection[str]
) -> list[dg.SensorDefinition]:
    """One of runs, one of checks; the names of pipelines tell their steps from others."""
    webhook = Webhook(settings)

    @dg.run_failure_sensor(
        name="run_failures",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes why a run failed to system_logs and to TS_FORECAST_WEBHOOK_URL.",
    )
    def run_failures(context: dg.RunFailureSensorContext) -> None:
        _report(settings, webhook, list(failures_of_run(context, pipelines)))

    @dg.sensor(
        name="check_failures",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Writes failed asset checks to system_logs and to TS_FORECAST_WEBHOOK_URL.",
    )
    def check_failures(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        storage = context.instance.event_log_storage
        if context.cursor is None:
            # What failed before anybody watched is no news.
            newest = storage.get_event_records(
                EventRecordsFilter(DagsterEventType.ASSET_CHECK_EVALUATION), limit=1
            )
            context.update_cursor(str(newest[0].storage_id if newest else 0))
            return dg.SkipReason("Watching from now on.")
        records = storage.get_event_records(
            EventRecordsFilter(
                DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=int(context.cursor)
            ),
            limit=_EVENTS_PER_TICK,
            ascending=True,
        )
        found = []
        for record in records:
            evaluation = record.event_log_entry.asset_check_evaluation
            if evaluation is not None and not evaluation.passed:
                found.append(failure_of_check(evaluation, record.run_id))
        _report(settings, webhook, found)
        if records:
            context.update_cursor(str(records[-1].storage_id))
        return dg.SkipReason(f"{len(records)} checks, {len(found)} failed.")

    return [run_failures, check_failures]


def failures_of_run(
    context: dg.RunFailureSensorContext, pipelines: Collection[str]
) -> Iterator[Failure]:
    """Each failed step of the run, or the run itself where no step has failed."""
    run = context.dagster_run
    details = {"dagster_run": run.run_id, "job": run.job_name}
    quarter = _quarter(run.tags)
    steps = context.get_step_failure_events()
    for event in steps:
        data = event.step_failure_data
        told = data.user_failure_data
        error = told.description if told is not None and told.description else _cause(data.error)
        pipeline, step = _place(str(event.step_key), pipelines)
        yield Failure(pipeline, quarter, step, error or "no reason given", details=details)
    if not steps:
        chosen = sorted({key.path[0] for key in run.asset_selection or ()})
        named = run.job_name.removeprefix(JOB_PREFIX)
        pipeline = ", ".join(chosen) or (named if named in pipelines else "")
        reason = context.failure_event.message or "the run failed without a reason"
        yield Failure(pipeline, quarter, run.job_name, reason, details=details)


def failure_of_check(evaluation: dg.AssetCheckEvaluation, run_id: str) -> Failure:
    """A failed check; a warning unless it blocks."""
    path = evaluation.asset_key.path
    is_error = evaluation.severity == dg.AssetCheckSeverity.ERROR
    quarter = _label(evaluation.partition) if evaluation.partition else ""
    # The description of ours begins with the quarter.
    reason = (evaluation.description or "no reason given").removeprefix(f"{quarter}: ")
    return Failure(
        pipeline=path[0],
        quarter=quarter,
        step="/".join(path[1:]),
        error=f"check {evaluation.check_name} failed: {reason}",
        level="ERROR" if is_error else "WARNING",
        details={"dagster_run": run_id, "check": evaluation.check_name},
    )


def _report(settings: Settings, webhook: Webhook, failures: Sequence[Failure]) -> None:
    """Store first: the webhook may be gone."""
    if not failures:
        return
    if settings.log_to_database:
        database = open_database(settings)
        try:
            store_failures(database.engine, settings, failures)
        finally:
            database.dispose()
    mask = Masker.of(settings)
    lines = [f"{failure.level}: {failure.line(mask)}" for failure in failures]
    if len(lines) > _LINES_PER_MESSAGE:
        rest = len(lines) - _LINES_PER_MESSAGE
        lines = [*lines[:_LINES_PER_MESSAGE], f"and {rest} more in system_logs"]
    webhook.tell("\n".join(lines))


def _place(step_key: str, pipelines: Collection[str]) -> tuple[str, str]:
    """Pipeline and asset of a step; no pipeline where it is an op of another job."""
    for name in sorted(pipelines, key=len, reverse=True):
        if step_key.startswith(f"{name}__"):
            return name, step_key.removeprefix(f"{name}__").replace("__", "/", 1)
    return "", step_key


def _quarter(tags: Mapping[str, str]) -> str:
    if _PARTITION in tags:
        return _label(tags[_PARTITION])
    ends = [_label(tags[name]) for name in _RANGE if name in tags]
    return " to ".join(dict.fromkeys(ends))


def _label(key: str) -> str:
    try:
        return Quarter.parse(key).label
    except TsForecastError:
        return key


def _cause(error: object) -> str:
    """The innermost reason, without Dagster's wrapping."""
    message = ""
    while error is not None:
        message = str(getattr(error, "message", "")) or message
        error = getattr(error, "cause", None)
    return message
