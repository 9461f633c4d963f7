"""``trained_models``: one asset for each model of a pipeline."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from assets.checks import check_specs
from assets.metadata import numbers, table
from assets.partitions import quarterly_partitions, quarters_of
from assets.plots import loss_plot
from assets.step import (
    ARRIVALS,
    FIT_AT,
    QuarterDone,
    StepConfig,
    asset_attributes,
    for_each_quarter,
    reason_in_one_line,
)
from resources.free_slots import offered
from resources.gpu_pool import GPU_POOL
from resources.postgres import Postgres
from resources.ray_executor import request_tags
from ts_forecast.checks.quarter import OF_MODELS, check_model
from ts_forecast.checks.record import note_results
from ts_forecast.checks.result import CheckResult
from ts_forecast.datasets.quarter import ingest_quarters, missing_quarters
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.calibration import calibrate
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.search.trials import choose_parameters, trial_table
from ts_forecast.search_space import Space
from ts_forecast.settings import Settings
from ts_forecast.side_by_side import Tell, side_by_side
from ts_forecast.training.ensemble import train_ensemble
from ts_forecast.training.progress import loss_curves
from ts_forecast.training.quarter import TrainingOutcome, train_quarter


def build_trained_models(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """One ``trained_models/<model>`` asset a model, in the order of the pipeline file."""
    return [_build_trained_model(pipeline, spec) for spec in pipeline.models]


def _build_trained_model(pipeline: Pipeline, spec: ModelSpec) -> dg.AssetsDefinition:
    partitions = quarterly_partitions(pipeline)
    key = [pipeline.name, "trained_models", spec.name]

    @dg.asset(
        key=key,
        deps=[
            dg.AssetKey([pipeline.name, "datasets"]),
            *(dg.AssetKey([pipeline.name, "trained_models", name]) for name in spec.of),
        ],
        partitions_def=partitions,
        check_specs=check_specs(pipeline, key, OF_MODELS, partitions),
        backfill_policy=dg.BackfillPolicy.multi_run(pipeline.quarters_per_run),
        pool=GPU_POOL if spec.ensemble is None else None,
        op_tags=request_tags(pipeline, is_neural=spec.kind.is_neural),
        kinds=_kinds(spec),
        tags={"model": spec.model, "framework": spec.kind.framework},
        description=_description(pipeline, spec),
        metadata=_definition_metadata(spec),
        **asset_attributes(pipeline),
    )
    def trained_model(
        context: dg.AssetExecutionContext, config: StepConfig, postgres: dg.ResourceParam[Postgres]
    ) -> Iterator[Any]:
        def tell(quarter: Quarter, progress: object) -> None:
            context.log.info(f"{FIT_AT}: {quarter.label}: {progress}")

        quarters = quarters_of(context)
        ingest_window(context, postgres, pipeline, quarters)
        with side_by_side(
            partial(_train, pipeline, spec, config.force),
            postgres.engine,
            postgres.settings,
            quarters,
            # A search uses them itself.
            slots=offered() if spec.kind.searches is None else None,
            tell=tell,
        ) as trained:
            yield from for_each_quarter(context, quarters, trained)

    return trained_model


def _train(
    pipeline: Pipeline,
    spec: ModelSpec,
    force: bool,
    engine: Engine,
    settings: Settings,
    quarter: Quarter,
    tell: Tell,
) -> QuarterDone:
    """Fit the quarter's model, and check what has become of it."""
    where = (engine, settings, pipeline, spec, quarter)
    if spec.ensemble is not None:
        outcome = train_ensemble(*where, force=force)
    else:
        choose = partial(choose_parameters, slots=offered(), settings=settings)
        outcome = train_quarter(
            *where, force=force, choose=choose, calibrate=calibrate, tell=partial(tell, quarter)
        )

    def check(session: Session) -> list[CheckResult]:
        results = check_model(session, pipeline, quarter, spec.name)
        note_results(session, pipeline, quarter, spec.name, results)
        return results

    return QuarterDone(
        _outcome_metadata(engine, spec, quarter, outcome), in_transaction(engine, check)
    )


def _outcome_metadata(
    engine: Engine, spec: ModelSpec, quarter: Quarter, outcome: TrainingOutcome
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "quarter": quarter.label,
        "reused": outcome.reused,
        "fingerprint": outcome.fingerprint,
        "fit_until": str(outcome.fit_until),
        "path": dg.MetadataValue.path(outcome.path),
        **numbers(
            {
                "run_id": outcome.run_id,
                "model_id": outcome.model_id,
                "training_seconds": outcome.seconds,
                "training_samples": outcome.samples,
                "final_loss": outcome.final_loss,
                **{f"weight_{name}": w for name, w in outcome.weights.items()},
            }
        ),
    }
    curves = in_transaction(
        engine, lambda session: loss_curves(session, outcome.run_id), read_only=True
    )
    if not curves.empty:
        metadata["loss"] = loss_plot(curves, f"{spec.name} {quarter.label}")
    if outcome.calibration is not None:
        metadata["calibration"] = dg.MetadataValue.json(outcome.calibration)
    if outcome.search is not None:
        metadata |= _search_metadata(engine, outcome.run_id, outcome.search)
    return metadata


def _kinds(spec: ModelSpec) -> set[str]:
    if spec.ensemble is not None:
        return {"postgres"}
    is_torch = spec.kind.framework in ("neuralforecast", "pytorch")
    return {"pytorch" if is_torch else "scikitlearn", "postgres"}


def _description(pipeline: Pipeline, spec: ModelSpec) -> str:
    if spec.ensemble is not None:
        how = {
            "mean": "The mean",
            "median": "The median",
            "trimmed_mean": "The mean, without the lowest and the highest,",
        }.get(
            spec.ensemble,
            f"The mean, weighted by the inverse {pipeline.champion_metric} of twins over the last "
            "quarter of what they may see,",
        )
        return f"{how} of {', '.join(spec.of)}, quantile by quantile."
    what = f"{spec.model} that forecasts the quarter, fitted on observations before it only "
    what += f"(the last {pipeline.window_quarters} quarters)."
    if spec.kind.searches is None:
        return what
    return f"{what} Its parameters are those of the best trial on the end of these observations."


def _definition_metadata(spec: ModelSpec) -> dict[str, Any]:
    metadata: dict[str, Any] = {"parameters": dg.MetadataValue.json(spec.parameters)}
    if spec.kind.searches is None:
        return metadata
    space = spec.search_space
    if isinstance(space, Space):
        metadata["search_space"] = dg.MetadataValue.json(space.canonical())
    else:
        metadata["search_space"] = space or "the library's"
    return metadata


def _search_metadata(engine: Engine, run_id: int, search: dict[str, Any]) -> dict[str, Any]:
    """What a search tried and found; the best value is plotted over quarters."""
    trials = in_transaction(engine, lambda session: trial_table(session, run_id), read_only=True)
    return {
        "trials": table(trials),
        "search_space": dg.MetadataValue.json(search["space"]),
        f"validation_{search['metric']}": float(search["best_value"]),
        "best_trial": int(search["best_trial"]),
    }


def ingest_window(
    context: dg.AssetExecutionContext,
    postgres: Postgres,
    pipeline: Pipeline,
    quarters: list[Quarter],
) -> None:
    """Ingest the quarters of the training windows that were never materialized.

    A backfill of four quarters needs the history before them; asking people to materialize it first
    would make the first backfill fail. Each is reported as a materialization of ``datasets``.
    """
    window = sorted({part for quarter in quarters for part in pipeline.window(quarter)})
    with reason_in_one_line():
        absent = in_transaction(
            postgres.engine,
            lambda session: missing_quarters(session, pipeline, window),
            read_only=True,
        )
        if not absent:
            return
        versions = ingest_quarters(
            postgres.engine,
            postgres.settings,
            pipeline,
            absent,
            only_available=True,
            only_accepted=ARRIVALS in context.run.tags,
        )
    for quarter, version in versions.items():
        context.log_event(
            dg.AssetMaterialization(
                asset_key=[pipeline.name, "datasets"],
                partition=quarter.key,
                description="Ingested on the way: a training window needed it.",
                metadata={"dagster/row_count": version.rows, "dataset_id": version.dataset_id},
            )
        )
