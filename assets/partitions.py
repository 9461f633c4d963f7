"""Quarterly partitions of a pipeline.

All mappings between its assets are identity, also where a body reads a window of earlier quarters: a
backfill of four quarters would otherwise become one of other quarters
(docs/decisions/0008-backfills-and-the-window.md).
"""

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


def quarters_of(context: dg.AssetExecutionContext) -> list[Quarter]:
    """The quarters that this step materializes, oldest first."""
    return sorted(Quarter.parse(key) for key in context.partition_keys)
