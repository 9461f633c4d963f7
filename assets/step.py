"""What every asset body shares: its configuration, its error in one line, its progress.

The decoration that is the same for all assets (group, owners, retry) stands here too, so that the
bodies show only what differs.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.checks import check_outputs, evaluations
from ts_forecast.checks.result import CheckResult, RefusedSliceError
from ts_forecast.errors import DatabaseError, StorageError, TsForecastError
from ts_forecast.logs.context import bound
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

# Followed by ``assets.materialize`` to draw its progress bar.
QUARTER_DONE = "quarter done"
# Tag of the runs that a pipeline's arrivals sensor asked for; its value is the pipeline.
ARRIVALS = "ts_forecast/arrivals"
# Of the job that materializes a whole pipeline.
JOB_PREFIX = "materialize_"
FIT_AT = "fit at"
# Metadata of a step's failure that may not happen again with the same data.
IS_TRANSIENT = "transient"
_log = logging.getLogger(__name__)


class StepConfig(dg.Config):
    """Run configuration of every asset.

    Attributes:
        force: repeat the work even where an identical run is on record.
    """

    force: bool = False


def asset_attributes(pipeline: Pipeline) -> dict[str, Any]:
    """Keyword arguments of ``@dg.asset`` that all assets of a pipeline share."""
    return {
        "group_name": pipeline.name,
        "owners": ["team:forecasting"],
        "retry_policy": dg.RetryPolicy(
            max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL
        ),
    }


@dataclass(frozen=True)
class QuarterDone:
    """What a body made of a quarter; it pickles, as another process may have made it.

    Attributes:
        metadata: of the materialization.
        results: of the checks of what stands now.
    """

    metadata: dict[str, Any]
    results: Sequence[CheckResult] = ()


def for_each_quarter(
    context: dg.AssetExecutionContext,
    quarters: list[Quarter],
    body: Callable[[Quarter], QuarterDone],
) -> Iterator[Any]:
    """Run the body for each quarter, oldest first; yields Dagster's events.

    A quarter whose body fails ends the step; those before it are stored, and a retry finds them done. One
    with a failed blocking check is not materialized, so that a backfill makes nothing of it; the others
    are, and then the step fails, so that nothing in this run is made of it either.
    """
    pipeline = context.asset_key.path[0]
    done: dict[Quarter, dict[str, Any]] = {}
    problems = []
    for quarter in quarters:
        with bound(pipeline=pipeline, quarter=quarter.label), reason_in_one_line():
            try:
                outcome = body(quarter)
            except RefusedSliceError as error:
                outcome = QuarterDone({}, error.results)
        yield from evaluations(context.asset_key, quarter, outcome.results)
        if bad := [result for result in outcome.results if result.is_blocking]:
            problems += [f"{quarter.label}, {result.name}: {result.reason}" for result in bad]
            continue
        done[quarter] = outcome.metadata
        context.log.info(f"{QUARTER_DONE}: {quarter.label}")
    if problems:
        for quarter, metadata in done.items():
            yield dg.AssetMaterialization(
                context.asset_key, partition=quarter.key, metadata=metadata
            )
        raise dg.Failure(
            description=f"Blocking checks failed: {'; '.join(problems)}.",
            metadata={"error": "checks"},
            allow_retries=False,
        )
    for quarter, metadata in done.items():
        context.add_asset_metadata(metadata, partition_key=quarter.key)
    yield dg.MaterializeResult()
    yield from check_outputs(context)


@contextmanager
def reason_in_one_line() -> Iterator[None]:
    """Turn our errors into a step failure whose description is the reason and the remedy.

    Bad input is not retried: it would be as bad the next time. Errors of the database and of stores are.
    """
    try:
        yield
    except TsForecastError as error:
        _log.error("%s", error, exc_info=error)
        is_transient = isinstance(error, DatabaseError | StorageError)
        metadata = {"error": type(error).__name__, "remedy": error.remedy}
        raise dg.Failure(
            description=" ".join(str(error).split()),
            metadata=metadata | ({IS_TRANSIENT: True} if is_transient else {}),
            allow_retries=is_transient,
        ) from error
    except Exception:
        _log.exception("A step failed for a reason that is not the data's")
        raise
