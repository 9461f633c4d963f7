"""The models of a one-shot run: fitted once a fingerprint, with their rows; and on which device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.cores import threads_of_each
from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.store import file_sha256
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import DeviceError
from ts_forecast.evaluation.calibration import calibrate
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.places import place
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import ArtifactStore, record_artifact, verify
from ts_forecast.search.trials import choose_parameters
from ts_forecast.settings import Settings
from ts_forecast.tables.training import Model
from ts_forecast.tracking.fingerprint import library_versions
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.runs import OpenRun, RunKey, tracked_run
from ts_forecast.training.calibration import calibration_of, calibration_payload
from ts_forecast.training.quarter import training_fingerprint
from ts_forecast.training.search import search_of
from ts_forecast.training.trainer import FittedModel, fit_model, load_fitted


@dataclass(frozen=True)
class RecordedModel:
    """A fitted model that has its rows.

    Attributes:
        reused: it was on record, and was not fitted now.
    """

    model_id: int
    sha256: str
    fitted: FittedModel
    reused: bool


def use_backend(backend: str, settings: Settings) -> None:
    """Let this process fit on a GPU (``gpu``) or not (``cpu``); call it before torch is imported.

    Raises:
        DeviceError: a GPU was asked for and there is none; falling back would surprise.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_each(1)))
    if backend == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    if not settings.enable_gpu:
        raise DeviceError("ENABLE_GPU is false.", remedy="Unset it, or choose --backend cpu.")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            f"torch {torch.__version__} finds no GPU.",
            remedy="See `ts-forecast doctor`, or choose --backend cpu.",
        )


def recorded_model(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    history: Panel,
    experiment: int,
    source: Path,
    *,
    force: bool = False,
) -> RecordedModel:
    """The model on record, or a new one with its files and rows; commits in transactions of its own.

    Args:
        history: all that the model may see.
        source: the file that it came from; its hash is recorded.

    Raises:
        TrainingError: the fit failed; the run is ``failed`` with the reason.
        ArtifactError: the files of the model on record are gone or damaged.
    """
    panel = history.filled(pipeline.missing)
    quarter = Quarter.of(history.ds.max())
    wanted = spec
    search = in_transaction(
        engine, lambda session: search_of(session, pipeline, wanted), read_only=True
    )
    payload = None if search is None else search.payload(pipeline, history)
    measure = calibration_payload(pipeline, spec, history)
    mark = training_fingerprint(pipeline, spec, quarter, panel, payload, measure)
    key = RunKey(experiment, "train", f"{pipeline.name}/{spec.name}", mark, quarter)
    with tracked_run(engine, key, source_type="cli", force=force, tags={"model": spec.name}) as run:
        if not run.reused:
            if search is not None:
                spec = choose_parameters(
                    engine, pipeline, spec, search, history, run, force=force
                ).spec
            fitted = fit_model(pipeline, spec, panel)
            fitted.calibration = calibration_of(calibrate, pipeline, spec, history, quarter)
            return _store(engine, settings, pipeline, spec, run, fitted, source)
    query = select(Model).where(Model.run_id == run.run_id)
    model = in_transaction(engine, lambda session: session.scalars(query).one(), read_only=True)
    sha256 = (model.metadata_ or {})["sha256"]
    folder = verify(place(model.model_file_path), sha256).local
    fitted = load_fitted(folder, spec.chosen(model.hyperparameters))
    return RecordedModel(model.model_id, sha256, fitted, reused=True)


def _store(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    run: OpenRun,
    fitted: FittedModel,
    source: Path,
) -> RecordedModel:
    """Files first, then all rows in one transaction."""
    quarter, mark = run.key.quarter, run.key.fingerprint
    target = Path("staging", pipeline.name, spec.name, quarter.key, mark[:16])
    stored = ArtifactStore(settings).write_directory(target, fitted.save)
    framework = spec.kind.framework

    def record(session: Session) -> int:
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
                "seed": pipeline.seed,
            },
            hyperparameters=spec.parameters,
            training_samples=fitted.samples,
            training_duration_seconds=round(fitted.seconds, 3),
            model_size_bytes=stored.size_bytes,
            model_file_path=str(stored.path),
            status="trained",
            quarter_start=quarter.start.date(),
            metadata_={
                "sha256": stored.sha256,
                "fingerprint": mark,
                "source": str(source),
                "source_sha256": file_sha256(source),
                "final_loss": fitted.final_loss,
            },
        )
        session.add(model)
        session.flush()
        record_artifact(session, run.run_id, spec.name, "model", stored)
        log_parameters(
            session, run.run_id, {"model": spec.model, **spec.parameters}, category="model"
        )
        log_metrics(
            session,
            run.run_id,
            [
                MetricRow("train_loss", loss, step, "train", model_id=model.model_id)
                for step, loss in fitted.curves.get("train_loss", [])
            ],
        )
        run.complete(session)
        return model.model_id

    return RecordedModel(in_transaction(engine, record), stored.sha256, fitted, reused=False)
