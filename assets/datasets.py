"""``datasets`` and ``dataset_features``: the observations of a quarter and their profile."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd
from sqlalchemy.orm import Session

from assets.checks import check_specs, evaluations
from assets.metadata import column_schema, numbers, table
from assets.partitions import quarterly_partitions, quarters_of
from assets.plots import history_plot
from assets.step import (
    ARRIVALS,
    QuarterDone,
    StepConfig,
    asset_attributes,
    for_each_quarter,
    reason_in_one_line,
)
from resources.postgres import Postgres
from ts_forecast.arrivals.look import files_set_aside
from ts_forecast.checks.quarter import (
    OF_DATASETS,
    OF_FEATURES,
    OF_SOURCES,
    check_dataset,
    check_features,
)
from ts_forecast.checks.source import check_set_aside
from ts_forecast.datasets.profile import profile_dataset, profile_table
from ts_forecast.datasets.quarter import DatasetVersion, current_dataset, ingest_quarters
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import DatasetError
from ts_forecast.object_cache import fetched
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tables.dataset import DatasetFeature

_PLOTTED_SERIES = 6


def build_dataset_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The two assets of a pipeline's data."""
    partitions = quarterly_partitions(pipeline)

    @dg.asset(
        key=[pipeline.name, "datasets"],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"parquet", "postgres"},
        description=(
            f"Observations of the quarter, validated and canonical ({pipeline.frequency}). "
            f"{pipeline.description}"
        ).strip(),
        metadata={"dagster/column_schema": _canonical_schema(pipeline)},
        check_specs=[
            *check_specs(pipeline, [pipeline.name, "datasets"], OF_SOURCES, None),
            *check_specs(pipeline, [pipeline.name, "datasets"], OF_DATASETS, partitions),
        ],
        **asset_attributes(pipeline),
    )
    def datasets(
        context: dg.AssetExecutionContext, config: StepConfig, postgres: dg.ResourceParam[Postgres]
    ) -> Iterator[Any]:
        def describe(quarter: Quarter) -> QuarterDone:
            results = in_transaction(
                postgres.engine,
                lambda session: check_dataset(session, pipeline, quarter),
                read_only=True,
            )
            return QuarterDone(_dataset_metadata(quarter, versions[quarter]), results)

        quarters = quarters_of(context)
        with reason_in_one_line():
            versions = ingest_quarters(
                postgres.engine,
                postgres.settings,
                pipeline,
                quarters,
                force=config.force,
                # What the sensor asks for rests on the files that it has judged.
                only_accepted=ARRIVALS in context.run.tags,
            )
            aside = files_set_aside(postgres.engine, postgres.settings, pipeline)
        if "set_aside" not in pipeline.checks.skip:
            yield from evaluations(context.asset_key, None, [check_set_aside(aside)])
        yield from for_each_quarter(context, quarters, describe)

    @dg.asset(
        key=[pipeline.name, "dataset_features"],
        deps=[datasets],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"postgres"},
        description="A profile of every column of the quarter's dataset.",
        check_specs=check_specs(
            pipeline, [pipeline.name, "dataset_features"], OF_FEATURES, partitions
        ),
        **asset_attributes(pipeline),
    )
    def dataset_features(
        context: dg.AssetExecutionContext, postgres: dg.ResourceParam[Postgres]
    ) -> Iterator[Any]:
        def profile(quarter: Quarter) -> QuarterDone:
            def store(session: Session) -> list[DatasetFeature]:
                dataset = current_dataset(session, pipeline, quarter)
                if dataset is None:
                    raise DatasetError(
                        f"Pipeline {pipeline.name} has no dataset of {quarter.label}.",
                        remedy=f"Materialize {pipeline.name}/datasets for {quarter.key} first.",
                    )
                return profile_dataset(session, dataset, pipeline)

            features = in_transaction(postgres.engine, store)
            results = in_transaction(
                postgres.engine,
                lambda session: check_features(session, pipeline, quarter),
                read_only=True,
            )
            metadata = {"features": len(features), "profile": table(profile_table(features))}
            return QuarterDone(metadata, results)

        yield from for_each_quarter(context, quarters_of(context), profile)

    return [datasets, dataset_features]


def _dataset_metadata(quarter: Quarter, version: DatasetVersion) -> dict[str, Any]:
    frame = pd.read_parquet(fetched(version.path), columns=["unique_id", "ds", "y"])
    shown = frame["unique_id"].drop_duplicates().head(_PLOTTED_SERIES)
    return {
        "dagster/row_count": version.rows,
        "dagster/uri": version.path.as_uri(),
        "quarter": quarter.label,
        "dataset_id": version.dataset_id,
        "version": version.version,
        "changed": version.changed,
        "series": version.series,
        "file_hash": version.file_hash,
        **numbers(version.report),
        "history": history_plot(frame[frame["unique_id"].isin(shown)], f"{quarter.label}: y"),
    }


def _canonical_schema(pipeline: Pipeline) -> dg.TableSchema:
    columns = {
        "unique_id": ("string", "the series"),
        "ds": ("timestamp", f"on the grid {pipeline.frequency}, UTC without a zone"),
        "y": ("double", "the target; null where it was not observed"),
    }
    columns |= {name: ("double", "known ahead") for name in pipeline.exogenous.future}
    columns |= {name: ("double", "known up to the cutoff") for name in pipeline.exogenous.historic}
    return column_schema(columns)
