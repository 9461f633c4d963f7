"""The runs that an arrivals sensor asked for: which are under way, and which are asked for again.

What is to be done is ``ts_forecast.arrivals.plan``; turning it into run requests is ``sensors``.
"""

import dagster as dg
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTO_RETRY_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    RUN_KEY_TAG,
    WILL_RETRY_TAG,
)

from assets.step import ARRIVALS, IS_TRANSIENT
from ts_forecast.arrivals.plan import Request
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter, quarter_range

# Tag of each run, its retries and its repetitions; its value is the request's key.
WORK = "ts_forecast/work"
_UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# The daemon starts the retry of a failed run within seconds, or never.
_RETRY_SECONDS = 120.0
_FIRST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 86_400.0


def busy_quarters(instance: dg.DagsterInstance, pipeline: Pipeline, *, now: float) -> set[Quarter]:
    """Quarters that a run of the sensor is at, or will be at once: two would do the work twice.

    Args:
        now: seconds since the epoch.
    """
    tags = {ARRIVALS: pipeline.name}
    runs = [*instance.get_runs(dg.RunsFilter(tags=tags, statuses=_UNDER_WAY))]
    failed = dg.RunsFilter(
        tags={**tags, WILL_RETRY_TAG: "true"}, statuses=[dg.DagsterRunStatus.FAILURE]
    )
    for record in instance.get_run_records(failed, limit=20):
        is_fresh = now - (record.end_time or 0.0) < _RETRY_SECONDS
        if is_fresh and AUTO_RETRY_RUN_ID_TAG not in record.dagster_run.tags:
            runs.append(record.dagster_run)
    busy: set[Quarter] = set()
    for run in runs:
        one = run.tags.get(PARTITION_NAME_TAG)
        first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG, one)
        last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG, one)
        if first is not None and last is not None:
            busy |= {*quarter_range(Quarter.parse(first), Quarter.parse(last))}
    return busy


def run_key(
    instance: dg.DagsterInstance, pipeline: Pipeline, request: Request, *, now: float
) -> str | None:
    """The run key of a request; None if it was asked for and is not to be asked for now.

    What failed for its data would fail again: it waits for other data. What failed for another reason,
    its retries too (the database was away, the host went down), is asked for again after a minute, then
    after pauses that grow fourfold, up to a day.
    """
    tags = {ARRIVALS: pipeline.name, WORK: request.key}
    records = instance.get_run_records(dg.RunsFilter(tags=tags), limit=200)
    if not records:
        return request.key
    newest = records[0]
    if newest.dagster_run.status != dg.DagsterRunStatus.FAILURE or _is_of_data(instance, newest):
        return None
    asked = len({record.dagster_run.tags.get(RUN_KEY_TAG) for record in records})
    pause = min(_FIRST_PAUSE_SECONDS * 4.0 ** (asked - 1), _LONGEST_PAUSE_SECONDS)
    if now - (newest.end_time or now) < pause:
        return None
    return f"{request.key}-{asked + 1}"


def _is_of_data(instance: dg.DagsterInstance, record: RunRecord) -> bool:
    """Whether a step of the run failed for a reason of ours that stays, whoever repeats it."""
    events = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    for entry in events:
        if entry.dagster_event is None:
            continue
        told = entry.dagster_event.step_failure_data.user_failure_data
        if told is not None and IS_TRANSIENT not in told.metadata:
            return True
    return False
