"""The arrivals sensor of a pipeline: new and restated files become runs.

What arrived and what it calls for is decided in ``ts_forecast.arrivals``; here it becomes run requests
and a tick that says what was found.
"""

import time
from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from assets.arrival_runs import WORK, busy_quarters, run_key
from assets.checks import evaluations
from assets.step import ARRIVALS
from resources.postgres import Postgres
from ts_forecast.arrivals.look import Look, Memory, look
from ts_forecast.arrivals.plan import Request
from ts_forecast.checks.source import check_set_aside
from ts_forecast.pipeline import Pipeline

# Of a run whose process was killed: the work is the same, so nobody would ask for it again.
_MAX_RETRIES = "2"


def arrivals_sensor(
    pipeline: Pipeline, job: UnresolvedAssetJobDefinition, *, every: int
) -> dg.SensorDefinition:
    """The sensor; it runs by default if the pipeline is live.

    Args:
        every: seconds between two looks.
    """

    @dg.sensor(
        name=f"{pipeline.name}_arrivals",
        job=job,
        minimum_interval_seconds=every,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if pipeline.live else dg.DefaultSensorStatus.STOPPED
        ),
        description=(
            f"New and restated files of {pipeline.name}: asks for the quarters whose rows changed, and "
            "for what rests on them. A bad file is set aside (staging.uploads says why)."
        ),
    )
    def arrivals(
        context: dg.SensorEvaluationContext, postgres: dg.ResourceParam[Postgres]
    ) -> dg.SensorResult:
        memory = Memory.parse(context.cursor)
        found = look(postgres.engine, postgres.settings, pipeline, memory, now=time.time())
        for line in found.arrived:
            context.log.info(line)
        for line in found.waiting:
            context.log.warning(line)
        now = time.time()
        busy = busy_quarters(context.instance, pipeline, now=now) if found.requests else set()
        requests = [
            _run_request(pipeline, request, key)
            for request in found.requests
            if not busy & {*request.quarters}
            and (key := run_key(context.instance, pipeline, request, now=now)) is not None
        ]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(_in_words(found)),
            cursor=found.memory.dump(),
            asset_events=list(_check_of_the_source(pipeline, memory, found.memory)),
        )

    return arrivals


def _check_of_the_source(
    pipeline: Pipeline, before: Memory, after: Memory
) -> Iterator[dg.AssetCheckEvaluation]:
    """Told when it changes: a bad file alone makes no run that would tell it."""
    if after.aside is None or after.aside == before.aside or "set_aside" in pipeline.checks.skip:
        return
    key = dg.AssetKey([pipeline.name, "datasets"])
    yield from evaluations(key, None, [check_set_aside(after.aside)])


def _run_request(pipeline: Pipeline, request: Request, key: str) -> dg.RunRequest:
    first, last = request.quarters[0], request.quarters[-1]
    tags = {
        ARRIVALS: pipeline.name,
        WORK: request.key,
        "pipeline": pipeline.name,
        "dagster/max_retries": _MAX_RETRIES,
    }
    if first != last:
        tags |= {
            ASSET_PARTITION_RANGE_START_TAG: first.key,
            ASSET_PARTITION_RANGE_END_TAG: last.key,
        }
    return dg.RunRequest(
        run_key=key,
        partition_key=first.key if first == last else None,
        asset_selection=[
            dg.AssetKey([pipeline.name, *asset.split("/")]) for asset in request.assets
        ],
        tags=tags,
    )


def _in_words(found: Look) -> str:
    if found.requests:
        return "The runs that were asked for are under way, or have failed and wait."
    return " · ".join((*found.arrived, *found.waiting)) or "Nothing has changed."
