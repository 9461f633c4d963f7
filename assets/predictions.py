"""``predictions``: every forecast whose target date lies in the quarter, swapped in as one slice."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
import pandas as pd
from sqlalchemy import Engine

from assets.checks import check_specs
from assets.metadata import numbers, table, table_schema
from assets.partitions import quarterly_partitions, quarters_of
from assets.plots import forecast_plot
from assets.step import QuarterDone, StepConfig, asset_attributes, for_each_quarter
from assets.training import ingest_window
from resources.free_slots import offered
from resources.gpu_pool import GPU_POOL
from resources.postgres import Postgres
from resources.ray_executor import request_tags
from ts_forecast.checks.quarter import OF_PREDICTIONS, check_slice, refuse_wrong_slice
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.leaderboard import rank_series, telling_series
from ts_forecast.pipeline import Pipeline
from ts_forecast.predictions.latest import latest_forecasts
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.side_by_side import Tell, side_by_side
from ts_forecast.tables.prediction import Prediction


def build_predictions(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The predictions asset of a pipeline: one leaf table a partition."""
    partitions = quarterly_partitions(pipeline)
    key = [pipeline.name, "predictions"]

    @dg.asset(
        key=key,
        deps=[
            dg.AssetKey([pipeline.name, "datasets"]),
            *(dg.AssetKey([pipeline.name, "trained_models", m.name]) for m in pipeline.models),
        ],
        partitions_def=partitions,
        check_specs=check_specs(pipeline, key, OF_PREDICTIONS, partitions),
        backfill_policy=dg.BackfillPolicy.multi_run(pipeline.quarters_per_run),
        pool=GPU_POOL,
        op_tags=request_tags(pipeline, is_neural=any(m.kind.is_neural for m in pipeline.models)),
        kinds={"pytorch", "postgres"},
        description=(
            f"Every forecast whose target date lies in the quarter: from a cutoff every "
            f"{pipeline.step} steps, up to {pipeline.horizon} steps ahead, by all models."
        ),
        metadata={
            "dagster/column_schema": table_schema(Prediction),
            "dagster/table_name": "public.predictions",
        },
        **asset_attributes(pipeline),
    )
    def predictions(
        context: dg.AssetExecutionContext, config: StepConfig, postgres: dg.ResourceParam[Postgres]
    ) -> Iterator[Any]:
        quarters = quarters_of(context)
        ingest_window(context, postgres, pipeline, quarters)
        with side_by_side(
            partial(_forecast, pipeline, config.force),
            postgres.engine,
            postgres.settings,
            quarters,
            slots=offered(),
        ) as forecast:
            yield from for_each_quarter(context, quarters, forecast)

    return predictions


def _forecast(
    pipeline: Pipeline,
    force: bool,
    engine: Engine,
    settings: Settings,
    quarter: Quarter,
    _tell: Tell,
) -> QuarterDone:
    """Publish a quarter's slice, and check what readers see of it now."""
    inspect = refuse_wrong_slice(pipeline, quarter)
    outcome = forecast_quarter(engine, settings, pipeline, quarter, force=force, inspect=inspect)
    # One forecast for each target: the latest that was issued for it.
    frame = latest_forecasts(engine, outcome.experiment_id, quarter)
    metadata = {
        "dagster/row_count": outcome.rows,
        "quarter": quarter.label,
        "changed": outcome.changed,
        "reused": outcome.reused,
        "content_hash": outcome.content_hash,
        **numbers(
            {
                "run_id": outcome.run_id,
                "cutoffs": outcome.cutoffs,
                "series": outcome.series,
                "seconds": outcome.seconds,
            }
        ),
        **_pictures(pipeline, quarter, frame),
    }
    results = in_transaction(
        engine, lambda session: check_slice(session, pipeline, quarter), read_only=True
    )
    return QuarterDone(metadata, results)


def _pictures(pipeline: Pipeline, quarter: Quarter, frame: pd.DataFrame) -> dict[str, Any]:
    """Worst, median and best series of the quarter, drawn and listed."""
    ranked = rank_series(frame)
    ranking = {} if ranked.empty else {"worst_series": table(ranked.head(10))}
    chosen = telling_series(frame, ranked)
    title = f"{pipeline.name} {quarter.label}: forecast against actual"
    return {"forecasts": forecast_plot(frame, chosen, title), **ranking}
