"""Quarterly partitions of a pipeline and how its assets' partitions depend on each other."""

import dagster as dg

from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

# The running quarter and the next one exist before they end: live forecasts reach into both.
_AHEAD = 2


def quarterly_partitions(pipeline: Pipeline) -> dg.TimeWindowPartitionsDefinition:
    """Every quarter from the pipeline's start to its end, or to the next quarter if it has none."""
    has_end = pipeline.end is not None
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule="0 0 1 1,4,7,10 *",
        fmt="%Y-%m-%d",
        start=pipeline.first_quarter.key,
        end=Quarter.of(pipeline.end).shift(1).key if pipeline.end is not None else None,
        end_offset=0 if has_end else _AHEAD,
    )


def window_mapping(pipeline: Pipeline) -> dg.TimeWindowPartitionMapping:
    """Quarter q depends on ``q - window_quarters … q``; what lies before the start is nothing.

    A model of q reads nothing of q, and its mapping should end at ``q - 1``. But a backfill only
    considers a partition when one of its parents within the backfill has been materialized, so that
    the first quarter of any backfill of all assets would silently never be trained
    (docs/decisions/0008-backfills-and-the-window.md). What a model may see is decided, and tested,
    where it is trained.
    """
    return dg.TimeWindowPartitionMapping(
        start_offset=-pipeline.window_quarters,
        end_offset=0,
        allow_nonexistent_upstream_partitions=True,
    )


def quarters_of(context: dg.AssetExecutionContext) -> list[Quarter]:
    """The quarters that this step materializes, oldest first."""
    return sorted(Quarter.parse(key) for key in context.partition_keys)
