"""Training the models of a quarter: once for each fingerprint, with everything on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.quarter import load_panel
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import DatasetError, TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.places import exists, place
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import ArtifactStore, record_artifact
from ts_forecast.registry.versions import register_version
from ts_forecast.settings import Settings
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import fingerprint, library_versions
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.runs import OpenRun, RunKey, supersede, tracked_run
from ts_forecast.training.calibration import Calibrate, calibration_of, calibration_payload
from ts_forecast.training.device import Precision, resolved_precision
from ts_forecast.training.options import FitOptions, FitProgress
from ts_forecast.training.progress import CURVES, CurveStream, clear_streamed
from ts_forecast.training.search import ChooseParameters, Chosen, Search, search_of
from ts_forecast.training.trainer import FittedModel, fit_model

# Raise it when the same inputs would give another model.
TRAINING_CODE_VERSION = 4
_FOLDER_LENGTH = 16
_SETTINGS = ("space_name", "trials", "metric", "val_size", "seed", "best_trial")


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of training a model for a quarter.

    Attributes:
        reused: an identical model was on record; nothing was fitted.
        fit_until: the last timestamp that the model may have seen.
        seconds: of the fit, when it was made.
        samples: observations that it was fitted on.
        search: of a searched model: its definition, the best value and trial; None of others.
        calibration: of a calibrated model, ``Calibration.summary``; None of others.
        weights: of an ensemble: its members'; empty of others.
    """

    run_id: int
    model_id: int
    reused: bool
    fingerprint: str
    fit_until: pd.Timestamp
    path: str
    seconds: float
    samples: int
    final_loss: float | None
    search: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    weights: dict[str, float] = field(default_factory=dict)


def training_history(session: Session, pipeline: Pipeline, quarter: Quarter) -> Panel:
    """What the models of a quarter may see: its window, cut at the quarter's first cutoff.

    As it was observed; ``training_panel`` is the same, filled.

    Raises:
        DatasetError: the window holds nothing.
    """
    window = pipeline.window(quarter)
    if not window:
        raise DatasetError(
            f"Pipeline {pipeline.name}: {quarter.label} is its first quarter; there is no history to "
            "train on.",
            remedy=f"Choose a quarter after {pipeline.first_quarter.label}.",
        )
    plan = pipeline.slice_plan(quarter)
    return load_panel(session, pipeline, window[0], window[-1]).until(plan.fit_until)


def training_panel(session: Session, pipeline: Pipeline, quarter: Quarter) -> Panel:
    """What the models of a quarter are fitted on: ``training_history``, filled.

    Raises:
        DatasetError: the window holds nothing, or a value is missing and must not be.
    """
    return training_history(session, pipeline, quarter).filled(pipeline.missing)


def training_fingerprint(
    pipeline: Pipeline,
    spec: ModelSpec,
    quarter: Quarter,
    panel: Panel,
    search: dict[str, object] | None = None,
    calibration: dict[str, object] | None = None,
    precision: Precision | None = None,
) -> str:
    """What decides the model: the data that it sees and how it is fitted, nothing else.

    Args:
        panel: as ``training_panel`` gives it.
        search: of a searched model, ``Search.payload``.
        calibration: of a calibrated model, ``calibration_payload``.
        precision: as ``slice_is_current`` has it; default: that of this process.
    """
    return fingerprint(
        {
            **({} if search is None else {"search": search}),
            **({} if calibration is None else {"calibration": calibration}),
            "kind": "train",
            "code": TRAINING_CODE_VERSION,
            "quarter": quarter.key,
            "name": spec.name,
            "model": spec.model,
            "parameters": spec.parameters,
            "exogenous": pipeline.exogenous_of(spec).model_dump(mode="json"),
            "horizon": pipeline.horizon,
            "frequency": pipeline.frequency,
            "season": pipeline.season,
            # A neural model learns from short series too.
            "needed_history": None if spec.kind.is_neural else pipeline.needed_history,
            "quantiles": list(pipeline.quantiles),
            "seed": pipeline.seed,
            **_mixed_precision(pipeline, spec, precision),
            "data": panel.content_hash(),
            **({} if spec.transform is None else {"transform": spec.transform}),
            "libraries": library_versions(*spec.kind.libraries),
        }
    )


def train_quarter(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    quarter: Quarter,
    *,
    force: bool = False,
    choose: ChooseParameters | None = None,
    calibrate: Calibrate | None = None,
    tell: Callable[[FitProgress], None] | None = None,
) -> TrainingOutcome:
    """The model that forecasts a quarter: fitted now, or the identical one on record.

    The model's folder is complete before its rows appear, and all of the rows appear in one
    transaction. The parameters of a searched model are chosen first; then the plain class is fitted
    with them on everything that it may see, the validation window included.

    Args:
        choose: ``search.trials.choose_parameters``; needed for searched models only.
        calibrate: ``evaluation.calibration.calibrate``; needed for calibrated models only.
        tell: told every few seconds where the fit is; its loss curve grows in ``metrics`` meanwhile.

    Raises:
        DatasetError: the window was not ingested.
        PipelineError: the stored search space does not exist or does not fit.
        TrainingError: the fit failed; the run is ``failed`` with the reason.
    """
    wanted = spec

    def prepare(session: Session) -> tuple[int, Search | None, Panel]:
        return (
            ensure_experiment(session, pipeline),
            search_of(session, pipeline, wanted),
            training_history(session, pipeline, quarter),
        )

    experiment, search, history = in_transaction(engine, prepare)
    panel = history.filled(pipeline.missing)
    payload = None if search is None else search.payload(pipeline, history)
    measure = calibration_payload(pipeline, spec, history)
    mark = training_fingerprint(pipeline, spec, quarter, panel, payload, measure)
    key = RunKey(experiment, "train", f"{pipeline.name}/{spec.name} {quarter.label}", mark, quarter)
    with tracked_run(engine, key, force=force, tags={"model": spec.name}) as run:
        if not run.reused:
            chosen = None
            if search is not None:
                chosen = _chooser(choose, spec)(
                    engine, pipeline, spec, search, history, run, force=force
                )
                spec = chosen.spec
            options = FitOptions(
                scratch=settings.home / "fits" / pipeline.name / mark[:_FOLDER_LENGTH],
                report=CurveStream(engine, run.run_id, tell),
            )
            fitted = fit_model(pipeline, spec, panel, options)
            fitted.calibration = calibration_of(calibrate, pipeline, spec, history, quarter)
            found = _found(search, chosen)
            _store(engine, settings, pipeline, spec, quarter, run, mark, panel, fitted, found)

    def read(session: Session) -> TrainingOutcome:
        model = session.scalars(select(Model).where(Model.run_id == run.run_id)).one()
        if run.reused:
            # Data that were restated and taken back: the older model stands for the quarter again.
            supersede(session, experiment, "train", quarter, keep=run.run_id, model=spec.name)
        return outcome_of(session, pipeline, quarter, model, mark, reused=run.reused)

    return in_transaction(engine, read)


def trained_model(
    session: Session, experiment_id: int, name: str, quarter: Quarter
) -> Model | None:
    """The model of that name that stands for a quarter: of its latest completed run."""
    return session.scalars(
        select(Model)
        .join(Run, Run.run_id == Model.run_id)
        .where(
            Run.experiment_id == experiment_id,
            Run.status == "completed",
            Run.deleted_at.is_(None),
            Model.model_name == name,
            Model.quarter_start == quarter.start.date(),
        )
        .order_by(Run.end_time.desc(), Model.model_id.desc())
        .limit(1)
    ).first()


def trained_models(
    session: Session, pipeline: Pipeline, experiment_id: int, quarter: Quarter
) -> dict[str, Model | None]:
    """``trained_model`` of each model of the pipeline, by name; None where there is none."""
    return {
        spec.name: trained_model(session, experiment_id, spec.name, quarter)
        for spec in pipeline.models
    }


def _store(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    quarter: Quarter,
    run: OpenRun,
    mark: str,
    panel: Panel,
    fitted: FittedModel,
    found: dict[str, Any],
) -> None:
    folder = Path("staging", pipeline.name, spec.name, quarter.key, mark[:_FOLDER_LENGTH])
    stored = ArtifactStore(settings).write_directory(folder, fitted.save)
    framework, calibration = spec.kind.framework, fitted.calibration

    def record(session: Session) -> None:
        model = Model(
            run_id=run.run_id,
            model_name=spec.name,
            model_type=spec.model,
            framework=framework,
            framework_version=library_versions(*spec.kind.libraries)[spec.kind.libraries[0]],
            model_config={
                "horizon": pipeline.horizon,
                "frequency": pipeline.frequency,
                "quantiles": list(pipeline.quantiles),
                "exogenous": pipeline.exogenous_of(spec).model_dump(mode="json"),
                "seed": pipeline.seed,
                "fit_until": str(_fit_until(pipeline, quarter)),
            },
            hyperparameters=spec.parameters,
            training_dataset_id=panel.datasets[-1][0],
            training_samples=fitted.samples,
            training_duration_seconds=round(fitted.seconds, 3),
            model_size_bytes=stored.size_bytes,
            model_file_path=str(stored.path),
            status="trained",
            quarter_start=quarter.start.date(),
            metadata_={
                "sha256": stored.sha256,
                "fingerprint": mark,
                "data_hash": panel.content_hash(),
                "datasets": panel.lineage,
                "final_loss": fitted.final_loss,
                **({"fit": fitted.conduct} if fitted.conduct else {}),
                **({"search": found} if found else {}),
                **({"calibration": calibration.summary} if calibration is not None else {}),
            },
        )
        session.add(model)
        session.flush()
        record_artifact(session, run.run_id, f"{spec.name} {quarter.label}", "model", stored)
        log_parameters(
            session, run.run_id, {"model": spec.model, **spec.parameters}, category="model"
        )
        log_parameters(
            session,
            run.run_id,
            {"horizon": pipeline.horizon, "seed": pipeline.seed, "frequency": pipeline.frequency},
            category="pipeline",
            is_hyperparameter=False,
        )
        log_parameters(
            session,
            run.run_id,
            {f"fit.{key}": value for key, value in fitted.conduct.items()},
            category="fit",
            is_hyperparameter=False,
        )
        clear_streamed(session, run.run_id)
        rows = _curve_rows(fitted, model.model_id)
        if found:
            how = {f"search.{key}": found[key] for key in _SETTINGS if found[key] is not None}
            log_parameters(session, run.run_id, how, category="search", is_hyperparameter=False)
            rows.append(MetricRow(found["metric"], found["best_value"], model_id=model.model_id))
        log_metrics(session, run.run_id, rows)
        register_version(session, pipeline, spec.name, model.model_id)
        run.complete(session)

    in_transaction(engine, record)


def _chooser(choose: ChooseParameters | None, spec: ModelSpec) -> ChooseParameters:
    if choose is None:
        raise TrainingError(
            f"Model {spec.name}: nobody is there to choose the parameters of {spec.model}.",
            remedy="Pass choose=ts_forecast.search.trials.choose_parameters.",
        )
    return choose


def _found(search: Search | None, chosen: Chosen | None) -> dict[str, Any]:
    """What the model's row keeps of its search; empty if there was none."""
    if search is None or chosen is None:
        return {}
    return {
        **search.definition(),
        "space_name": search.space_name,
        "best_trial": chosen.trial,
        "best_value": chosen.value,
    }


def _curve_rows(fitted: FittedModel, model_id: int) -> list[MetricRow]:
    return [
        MetricRow(name, loss, step=step, dataset_type=CURVES[name], model_id=model_id)
        for name, curve in fitted.curves.items()
        for step, loss in curve
    ]


def _mixed_precision(
    pipeline: Pipeline, spec: ModelSpec, on_host: Precision | None
) -> dict[str, object]:
    """What a fit in mixed precision is marked with; full precision leaves no mark."""
    used = resolved_precision(pipeline.precision, on_host) if spec.kind.is_neural else "32-true"
    return {} if used == "32-true" else {"precision": used}


def _fit_until(pipeline: Pipeline, quarter: Quarter) -> pd.Timestamp:
    index = pd.Index([pipeline.slice_plan(quarter).fit_until]).to_numpy()
    return pipeline.grid.timestamps(index)[0]


def outcome_of(
    session: Session, pipeline: Pipeline, quarter: Quarter, model: Model, mark: str, *, reused: bool
) -> TrainingOutcome:
    """What a model on record says of its training.

    Raises:
        TrainingError: its files are gone.
        StorageError: the store that they lie in does not answer.
    """
    if not exists(place(model.model_file_path)):
        raise TrainingError(
            f"Pipeline {pipeline.name}, model {model.model_name}, {quarter.label}: its files are gone "
            f"from {model.model_file_path}.",
            remedy="Materialize the model again with force.",
        )
    return TrainingOutcome(
        run_id=model.run_id,
        model_id=model.model_id,
        reused=reused,
        fingerprint=mark,
        fit_until=_fit_until(pipeline, quarter),
        path=model.model_file_path,
        seconds=float(model.training_duration_seconds or 0),
        samples=model.training_samples or 0,
        final_loss=(model.metadata_ or {}).get("final_loss"),
        search=(model.metadata_ or {}).get("search"),
        calibration=(model.metadata_ or {}).get("calibration"),
        weights=(model.metadata_ or {}).get("weights", {}),
    )
