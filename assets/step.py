"""What every asset body shares: its configuration, its error in one line, its progress.

The decoration that is the same for all assets (group, owners, retry) stands here too, so that the
bodies show only what differs.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from ts_forecast.errors import DatabaseError, TsForecastError
from ts_forecast.logs.context import bound
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

# Followed by ``assets.materialize`` to draw its progress bar.
QUARTER_DONE = "quarter done"
FIT_AT = "fit at"
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


def for_each_quarter(
    context: dg.AssetExecutionContext,
    quarters: list[Quarter],
    body: Callable[[Quarter], dict[str, Any]],
) -> dg.MaterializeResult[None]:
    """Run the body for each quarter, oldest first, attaching what it returns as metadata.

    A quarter that fails ends the step; those before it are stored, and a retry finds them done.
    """
    pipeline = context.asset_key.path[0]
    for quarter in quarters:
        with bound(pipeline=pipeline, quarter=quarter.label), reason_in_one_line():
            metadata = body(quarter)
        context.add_asset_metadata(metadata, partition_key=quarter.key)
        context.log.info(f"{QUARTER_DONE}: {quarter.label}")
    return dg.MaterializeResult()


@contextmanager
def reason_in_one_line() -> Iterator[None]:
    """Turn our errors into a step failure whose description is the reason and the remedy.

    Bad input is not retried: it would be as bad the next time. Database errors are.
    """
    try:
        yield
    except TsForecastError as error:
        _log.error("%s", error, exc_info=error)
        raise dg.Failure(
            description=" ".join(str(error).split()),
            metadata={"error": type(error).__name__, "remedy": error.remedy},
            allow_retries=isinstance(error, DatabaseError),
        ) from error
    except Exception:
        _log.exception("A step failed for a reason that is not the data's")
        raise
