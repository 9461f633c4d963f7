"""The slice of a quarter: every forecast that its definition calls for, by all models, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from ts_forecast.cutoffs import SlicePlan
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.quarter import load_panel, stored_companions
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import PredictionError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.places import place
from ts_forecast.predictions.rolling import forecast_pairs, with_calibration
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, Published, publish_slice
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import verify
from ts_forecast.settings import Settings
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import fingerprint, library_versions
from ts_forecast.tracking.runs import RunKey, find_completed, supersede, tracked_run
from ts_forecast.training.calibration import calibration_payload, load_calibration
from ts_forecast.training.device import Precision
from ts_forecast.training.ensemble import combine, ensemble_fingerprint, load_weights
from ts_forecast.training.quarter import trained_model, training_fingerprint, training_history
from ts_forecast.training.search import search_of
from ts_forecast.training.trainer import load_fitted

Inspection = Callable[[Session, pa.Table, Sequence[Model], Panel], None]
"""Looks at the rows of a slice before they are published, and raises if they must not be."""

# Raise it when the same models and data would give other rows.
FORECASTING_CODE_VERSION = 1


@dataclass(frozen=True)
class ForecastOutcome:
    """What became of a slice.

    Attributes:
        reused: an identical slice was on record; nothing was forecast.
        changed: readers see other rows than before.
        rows: of the slice, all models together.
        cutoffs: from which at least one series was forecast.
    """

    experiment_id: int
    run_id: int
    reused: bool
    changed: bool
    rows: int
    content_hash: str
    cutoffs: int
    series: int
    seconds: float


def forecast_quarter(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarter: Quarter,
    *,
    force: bool = False,
    inspect: Inspection | None = None,
) -> ForecastOutcome:
    """Forecast a quarter with its models and publish the slice; commits in transactions of its own.

    Nothing is computed where models, data and definition are those of the slice on record.

    Args:
        inspect: sees the new rows before any reader does.

    Raises:
        PredictionError: a model of the quarter is missing, no forecast can be issued, one is not
            finite, or ``inspect`` raised it; readers still see the previous slice.
        PublishError: the slice could not be swapped in.
    """
    begun = time.monotonic()
    plan = pipeline.slice_plan(quarter)

    def prepare(session: Session) -> tuple[int, list[Model], Panel, dict[str, str]]:
        experiment = ensure_experiment(session, pipeline)
        models = [
            _model_of(session, pipeline, experiment, spec, quarter) for spec in pipeline.models
        ]
        panel = _slice_panel(session, pipeline, quarter, plan)
        return experiment, models, panel, stored_companions(session, pipeline, quarter)

    experiment, models, panel, companions = in_transaction(engine, prepare)
    issued = panel.issued(plan, pipeline)
    if not len(issued):
        raise PredictionError(_why_nothing(pipeline, quarter, panel, plan))
    mark = _fingerprint(pipeline, quarter, models, panel)
    key = RunKey(experiment, "predict", f"{pipeline.name} {quarter.label}", mark, quarter)
    published: Published | None = None
    with tracked_run(engine, key, force=force) as run:
        if not run.reused:
            rows = _slice_rows(pipeline, models, panel, plan, issued)
            if inspect is not None:
                look = partial(_inspect, inspect, rows, models, panel)
                in_transaction(engine, look, read_only=True)
            published = publish_slice(
                engine, experiment_id=experiment, run_id=run.run_id, quarter=quarter, rows=rows
            )
            metadata = {
                "rows": published.rows,
                "content_hash": published.content_hash,
                "cutoffs": len(np.unique(issued.cutoff)),
                "series": len(np.unique(issued.series)),
                "models": [model.model_id for model in models],
                "datasets": panel.lineage,
                "companions": companions,
            }

            def complete(session: Session) -> None:
                supersede(session, experiment, "predict", quarter, keep=run.run_id)
                run.complete(session, metadata)

            in_transaction(engine, complete)
    query = text("SELECT metadata FROM runs WHERE run_id = :id")
    stored = in_transaction(
        engine,
        lambda session: session.execute(query, {"id": run.run_id}).scalar_one(),
        read_only=True,
    )
    return ForecastOutcome(
        experiment_id=experiment,
        run_id=run.run_id,
        reused=run.reused,
        changed=published.changed if published is not None else False,
        rows=stored["rows"],
        content_hash=stored["content_hash"],
        cutoffs=stored["cutoffs"],
        series=stored["series"],
        seconds=time.monotonic() - begun,
    )


def _inspect(
    inspect: Inspection, rows: pa.Table, models: list[Model], panel: Panel, session: Session
) -> None:
    inspect(session, rows, models, panel)


def slice_is_current(
    session: Session, pipeline: Pipeline, quarter: Quarter, *, precision: Precision | None = None
) -> bool:
    """Whether ``forecast_quarter`` would find its work on record, with models that are current.

    Args:
        precision: what ``precision: auto`` means to the steps of this host, for whoever is none of
            them; default: what it means in this process.

    Raises:
        DatasetError: the quarter or its window was never ingested.
    """
    experiment = ensure_experiment(session, pipeline)
    history = training_history(session, pipeline, quarter)
    filled = history.filled(pipeline.missing)
    models = []
    for spec in pipeline.models:
        if spec.ensemble is not None:
            mark = ensemble_fingerprint(session, pipeline, spec, experiment, quarter)
        else:
            search = search_of(session, pipeline, spec)
            payload = None if search is None else search.payload(pipeline, history)
            measure = calibration_payload(pipeline, spec, history)
            mark = training_fingerprint(
                pipeline, spec, quarter, filled, payload, measure, precision=precision
            )
        model = trained_model(session, experiment, spec.name, quarter)
        if model is None or (model.metadata_ or {}).get("fingerprint") != mark:
            return False
        models.append(model)
    panel = _slice_panel(session, pipeline, quarter, pipeline.slice_plan(quarter))
    mark = _fingerprint(pipeline, quarter, models, panel)
    return find_completed(session, experiment, mark) is not None


def _model_of(
    session: Session, pipeline: Pipeline, experiment: int, spec: ModelSpec, quarter: Quarter
) -> Model:
    model = trained_model(session, experiment, spec.name, quarter)
    if model is None:
        raise PredictionError(
            f"Pipeline {pipeline.name}, {quarter.label}: the model {spec.name} was never trained.",
            remedy=f"Materialize {pipeline.name}/trained_models/{spec.name} for {quarter.key}.",
        )
    return model


def _slice_panel(session: Session, pipeline: Pipeline, quarter: Quarter, plan: SlicePlan) -> Panel:
    """History, actuals and what is known ahead, as far as the slice can use them."""
    window = pipeline.window(quarter)
    panel = load_panel(session, pipeline, window[0] if window else quarter, quarter)
    return panel.until(plan.last_target + plan.horizon)


def _fingerprint(pipeline: Pipeline, quarter: Quarter, models: list[Model], panel: Panel) -> str:
    return fingerprint(
        {
            "kind": "predict",
            "code": FORECASTING_CODE_VERSION,
            "quarter": quarter.key,
            "models": [[model.model_id, (model.metadata_ or {})["sha256"]] for model in models],
            "horizon": pipeline.horizon,
            "step": pipeline.step,
            "end": pipeline.end.isoformat() if pipeline.end else None,
            "needed_history": pipeline.needed_history,
            "missing": pipeline.missing,
            "levels": list(pipeline.levels),
            "data": panel.content_hash(),
            "libraries": library_versions(
                "neuralforecast", "statsforecast", "torch", *_of_regressions(pipeline)
            ),
        }
    )


def _of_regressions(pipeline: Pipeline) -> set[str]:
    """Libraries that count for pipelines with such a model alone."""
    kinds = [spec.kind for spec in pipeline.models if spec.kind.is_regression]
    return {name for kind in kinds for name in kind.libraries}


def _slice_rows(
    pipeline: Pipeline, models: list[Model], panel: Panel, plan: SlicePlan, issued: Issued
) -> pa.Table:
    """Rows of all models, in the order of the pipeline file; ensembles are made of the others."""
    wanted = {name for spec in pipeline.models for name in spec.of}
    by_name = dict(zip((spec.name for spec in pipeline.models), models, strict=True))
    kept: dict[str, np.ndarray] = {}
    tables: dict[str, pa.Table] = {}
    for spec in sorted(pipeline.models, key=lambda spec: spec.ensemble is not None):
        model = by_name[spec.name]
        stored = verify(place(model.model_file_path), (model.metadata_ or {})["sha256"])
        if spec.ensemble is not None:
            outputs = combine(spec, load_weights(stored.local), kept)
            calibration = load_calibration(stored.local)
            if calibration is not None:
                outputs = with_calibration(calibration, pipeline, spec.name, panel, issued, outputs)
        else:
            fitted = load_fitted(stored.local, spec.chosen(model.hyperparameters))
            outputs = forecast_pairs(fitted, pipeline, panel, issued)
        if spec.name in wanted:
            kept[spec.name] = outputs
        tables[spec.name] = _rows(pipeline, model, panel, plan, issued, outputs)
    return pa.concat_tables([tables[spec.name] for spec in pipeline.models])


def _rows(
    pipeline: Pipeline,
    model: Model,
    panel: Panel,
    plan: SlicePlan,
    issued: Issued,
    outputs: np.ndarray,
) -> pa.Table:
    """A model's rows of the slice, in ``PREDICTION_SCHEMA``."""
    targets = issued.cutoff[:, None] + np.arange(1, plan.horizon + 1)[None, :]
    pair, step = np.nonzero((targets >= plan.first_target) & (targets <= plan.last_target))
    values = outputs[pair, step]
    index = targets[pair, step]
    rows = panel.rows_at(issued.series[pair], index)
    actual = np.where(rows >= 0, panel.y[rows], np.nan)
    ids = pa.DictionaryArray.from_arrays(
        pa.array(issued.series[pair], pa.int32()), pa.array(list(panel.unique_ids), pa.string())
    )
    columns: dict[str, pa.Array] = {
        "model_id": pa.array(np.full(len(pair), model.model_id)),
        "unique_id": ids.cast(pa.string()),
        "prediction_date": pa.array(
            panel.grid.timestamps(index).to_numpy().astype("datetime64[us]"), pa.timestamp("us")
        ),
        "horizon": pa.array((step + 1).astype(np.int32)),
        "actual_value": pa.array(actual, from_pandas=True),
        **_values(pipeline, values),
    }
    return pa.table([columns[name] for name in PREDICTION_SCHEMA.names], schema=PREDICTION_SCHEMA)


def _values(pipeline: Pipeline, values: np.ndarray) -> dict[str, pa.Array]:
    """Point forecast, bounds of the first level and all quantiles from ``[rows, n_outputs]``."""
    count = len(values)
    empty = pa.nulls(count, pa.float64())
    if not pipeline.quantiles:
        return {
            "predicted_value": pa.array(values[:, 0]),
            "lower_bound": empty,
            "upper_bound": empty,
            "confidence_level": empty,
            "quantiles": pa.nulls(count, pa.list_(pa.float64())),
        }
    level = pipeline.levels[0]
    places = {round(q, 6): i for i, q in enumerate(pipeline.quantiles)}
    lower, upper = places[round(0.5 - level / 200, 6)], places[round(0.5 + level / 200, 6)]
    is_known = np.isfinite(values).all(axis=1)
    offsets = pa.array(
        np.arange(count + 1, dtype=np.int32) * values.shape[1],
        mask=np.append(~is_known, False),
    )
    return {
        "predicted_value": pa.array(values[:, places[0.5]]),
        "lower_bound": pa.array(np.where(is_known, values[:, lower], np.nan), from_pandas=True),
        "upper_bound": pa.array(np.where(is_known, values[:, upper], np.nan), from_pandas=True),
        "confidence_level": pa.array(np.where(is_known, level / 100, np.nan), from_pandas=True),
        "quantiles": pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1))),
    }


def _why_nothing(pipeline: Pipeline, quarter: Quarter, panel: Panel, plan: SlicePlan) -> str:
    first = panel.grid.timestamps(plan.cutoffs[:1]) if len(plan.cutoffs) else None
    last = panel.grid.timestamps(np.array([panel.last_observed.max()]))[0]
    reason = "no cutoff reaches it" if first is None else f"its first cutoff is {first[0]}"
    if pipeline.exogenous.future:
        known = panel.grid.timestamps(np.array([panel.known_ahead.max()]))[0]
        reason += f", {', '.join(pipeline.exogenous.future)} is known until {known}"
    return (
        f"Pipeline {pipeline.name}, {quarter.label}: no forecast can be issued: {reason}, "
        f"the last observation is {last}, and a series needs {pipeline.needed_history} observations."
    )
