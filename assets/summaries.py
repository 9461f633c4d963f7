"""``metric_summaries``: the accuracy of a quarter's forecasts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
from sqlalchemy import Engine

from assets.checks import check_specs
from assets.metadata import numbers, table, table_schema
from assets.partitions import quarterly_partitions, quarters_of
from assets.step import QuarterDone, StepConfig, asset_attributes, for_each_quarter
from resources.free_slots import offered
from resources.postgres import Postgres
from ts_forecast.checks.quarter import OF_SUMMARIES, check_scores
from ts_forecast.checks.result import CheckResult
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.leaderboard import quarter_accuracy
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.reports.content import Content, report_content
from ts_forecast.reports.page import write_report
from ts_forecast.settings import Settings
from ts_forecast.side_by_side import Tell, side_by_side
from ts_forecast.tables.evaluation import MetricSummary


def build_metric_summaries(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The metric_summaries asset of a pipeline."""
    partitions = quarterly_partitions(pipeline)
    key = [pipeline.name, "metric_summaries"]

    @dg.asset(
        key=key,
        deps=[
            dg.AssetKey([pipeline.name, "predictions"]),
            dg.AssetKey([pipeline.name, "datasets"]),
        ],
        partitions_def=partitions,
        check_specs=check_specs(pipeline, key, OF_SUMMARIES, partitions),
        # That of the predictions: they are scored in the same run, while the next one trains.
        backfill_policy=dg.BackfillPolicy.multi_run(pipeline.quarters_per_run),
        kinds={"postgres"},
        description=(
            f"Per model: the distribution of {', '.join(pipeline.metrics)} over series, by horizon "
            "and overall, with skill against the seasonal naive."
        ),
        metadata={"dagster/column_schema": table_schema(MetricSummary)},
        **asset_attributes(pipeline),
    )
    def metric_summaries(
        context: dg.AssetExecutionContext, config: StepConfig, postgres: dg.ResourceParam[Postgres]
    ) -> Iterator[Any]:
        def report(quarter: Quarter) -> QuarterDone:
            scores = scored(quarter)
            if scores.report is None:
                return QuarterDone(scores.metadata, check(quarter))
            # In the order of time: these compare the quarter with those before it.
            written = write_report(
                postgres.engine, postgres.settings, pipeline, quarter, scores.report
            )
            path = dg.MetadataValue.path(str(written.path))
            return QuarterDone(scores.metadata | {"report": path}, check(quarter))

        def check(quarter: Quarter) -> list[CheckResult]:
            return in_transaction(
                postgres.engine,
                lambda session: check_scores(session, pipeline, quarter),
                read_only=True,
            )

        quarters = quarters_of(context)
        with side_by_side(
            partial(_score, pipeline, config.force),
            postgres.engine,
            postgres.settings,
            quarters,
            slots=offered(),
        ) as scored:
            yield from for_each_quarter(context, quarters, report)

    return metric_summaries


@dataclass(frozen=True)
class _Scores:
    """A scored quarter, whatever was scored before it.

    Attributes:
        report: to be completed and written; None where there is nothing to score yet.
    """

    metadata: dict[str, Any]
    report: Content | None


def _score(
    pipeline: Pipeline,
    force: bool,
    engine: Engine,
    settings: Settings,
    quarter: Quarter,
    _tell: Tell,
) -> _Scores:
    outcome = score_quarter(engine, settings, pipeline, quarter, force=force)
    metadata: dict[str, Any] = {
        "quarter": quarter.label,
        "reused": outcome.reused,
        "dagster/row_count": outcome.summaries,
    }
    if outcome.run_id is None:
        return _Scores(metadata | {"note": "no actuals yet: nothing to score"}, None)
    run_id = outcome.run_id
    accuracy = in_transaction(
        engine, lambda session: quarter_accuracy(session, run_id), read_only=True
    )
    plotted = {
        f"{row.metric}_{row.model}": row.mean
        for row in accuracy[accuracy["horizon_bucket"] == "all"].itertuples()
    }
    metadata |= {"accuracy": table(accuracy), **numbers(plotted), **numbers({"run_id": run_id})}
    return _Scores(metadata, report_content(engine, pipeline, quarter))
