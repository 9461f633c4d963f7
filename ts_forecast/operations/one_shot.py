"""Forecasting one file once: fit, measure on a holdout, forecast what comes, record all of it.

The last horizon of the file is held out: models are fitted on what lies before it, measured on it, and
then forecast from the end of the file. A deployment does the same every quarter, through Dagster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Engine, select

from ts_forecast.datasets.panel import Issued, Panel
from ts_forecast.datasets.readers import read_source
from ts_forecast.datasets.store import file_sha256
from ts_forecast.datasets.validation import check_claim
from ts_forecast.db.engine import transaction
from ts_forecast.errors import DatasetError
from ts_forecast.files import write_whole
from ts_forecast.operations.columns import Columns
from ts_forecast.operations.forecast_rows import forecast_frame, measure, slice_rows
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.predictions.slice import publish_slice
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import ArtifactStore, record_artifact, verify
from ts_forecast.settings import Settings
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import library_versions
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.runs import RunKey, tracked_run
from ts_forecast.training.quarter import training_fingerprint
from ts_forecast.training.trainer import FittedModel, fit_model, load_fitted

BASELINE = "SeasonalNaive"


@dataclass(frozen=True)
class OneShot:
    """What a one-shot run gave.

    Attributes:
        predictions: ``horizon, model, unique_id, cutoff, ds, predicted_value, actual_value`` and bounds;
            of the holdout and of the future.
        metrics: ``horizon, model, metric, value`` over the holdout.
        files: what was written into the output folder.
        reused: models that were on record and were not fitted again.
    """

    predictions: pd.DataFrame
    metrics: pd.DataFrame
    files: tuple[Path, ...]
    reused: int


def forecast_file(
    engine: Engine,
    settings: Settings,
    path: Path,
    columns: Columns,
    *,
    models: Sequence[str],
    horizons: Sequence[int],
    output_dir: Path,
    parameters: dict[str, Any] | None = None,
    levels: Sequence[int] = (),
    seed: int = 1,
    missing: str = "interpolate",
    progress: Callable[[str], None] = lambda _: None,
) -> OneShot:
    """Forecast a file with every model and horizon; writes files and rows.

    Args:
        parameters: given to every neural model.
        progress: called with a line before each model.

    Raises:
        PipelineError: a model is unknown or refuses a parameter.
        SourceError: the file is wrong; nothing was written.
        DatasetError: the file is too short for a horizon.
    """
    wanted = [*models, *([] if BASELINE in models else [BASELINE])]
    predictions, metrics, reused = [], [], 0
    for horizon in horizons:
        pipeline = _pipeline(
            path, columns, wanted, horizon, parameters or {}, levels, seed, missing
        )
        frame = read_source(path, pipeline)
        check_claim(path, frame, pipeline)
        panel = Panel.from_frame(frame, pipeline)
        cutoff = _holdout_cutoff(panel, pipeline)
        with transaction(engine) as session:
            experiment = ensure_experiment(session, pipeline)
        rows: dict[Quarter, list[pa.Table]] = {}
        last_run = 0
        for spec in pipeline.models:
            progress(f"{spec.name}, {horizon} steps")
            run_id, model_id, fitted, was_there = _fitted(
                engine, settings, pipeline, spec, panel.until(cutoff), experiment, path
            )
            reused += was_there
            part, issued = _forecasts(fitted, pipeline, panel, cutoff)
            frame = forecast_frame(pipeline, spec, panel, issued, part)
            predictions.append(frame)
            scores = measure(frame, pipeline, spec, panel.until(cutoff))
            metrics.append(scores)
            for quarter, table in slice_rows(frame, model_id, pipeline).items():
                rows.setdefault(quarter, []).append(table)
            if not was_there:
                _record_scores(engine, run_id, model_id, scores)
            last_run = run_id
        for quarter, tables in rows.items():
            publish_slice(
                engine,
                experiment_id=experiment,
                run_id=last_run,
                quarter=quarter,
                rows=pa.concat_tables(tables),
            )
    all_predictions = pd.concat(predictions, ignore_index=True)
    all_metrics = pd.concat(metrics, ignore_index=True)
    files = _write(output_dir, all_predictions, all_metrics)
    return OneShot(all_predictions, all_metrics, files, reused)


def use_backend(backend: str) -> None:
    """Let this process see a GPU (``gpu``) or not (``cpu``), before torch is imported.

    Raises:
        DatasetError: never; an absent GPU shows when the first model is fitted.
    """
    if backend == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _pipeline(
    path: Path,
    columns: Columns,
    models: Sequence[str],
    horizon: int,
    parameters: dict[str, Any],
    levels: Sequence[int],
    seed: int,
    missing: str,
) -> Pipeline:
    stem = re.sub(r"\W+", "_", path.stem).strip("_").lower() or "file"
    content = {
        "name": f"one_shot_{stem}"[:50] + f"_h{horizon}",
        "description": f"One-shot forecasts of {path.name}",
        "source": {**columns.source, "files": str(path.absolute())},
        "frequency": columns.frequency,
        "horizon": horizon,
        "start": "1700-01-01",
        "missing": missing,
        "models": [
            {"model": name, "parameters": {} if name == BASELINE else parameters} for name in models
        ],
        "baseline": BASELINE,
        "levels": list(levels),
        "seed": seed,
    }
    return parse_pipeline(content, origin="ts-forecast run")


def _holdout_cutoff(panel: Panel, pipeline: Pipeline) -> int:
    last = int(panel.last_observed.max())
    cutoff = last - pipeline.horizon
    longest = last - int(panel.first.min()) + 1
    if longest < pipeline.needed_history + pipeline.horizon:
        raise DatasetError(
            f"The longest series has {longest} observations; a horizon of {pipeline.horizon} needs "
            f"{pipeline.needed_history + pipeline.horizon}: a season to learn from and the holdout.",
            remedy="Give a shorter horizon, or more history.",
        )
    return cutoff


def _forecasts(
    fitted: FittedModel, pipeline: Pipeline, panel: Panel, cutoff: int
) -> tuple[np.ndarray, Issued]:
    """From the holdout's cutoff and from the end, for every series that has enough behind it."""
    ends = np.array([cutoff, int(panel.last_observed.max())])
    series = np.repeat(np.arange(panel.n_series), 2)
    cutoffs = np.tile(ends, panel.n_series)
    enough = (cutoffs - panel.first[series] + 1 >= pipeline.needed_history) & (
        panel.last_observed[series] >= cutoffs
    )
    issued = Issued(series[enough], cutoffs[enough])
    return forecast_pairs(fitted, pipeline, panel, issued), issued


def _fitted(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    history: Panel,
    experiment: int,
    path: Path,
) -> tuple[int, int, FittedModel, bool]:
    """The model on record, or a new one with its rows: run, model, itself, whether it was there."""
    panel = history.filled(pipeline.missing)
    quarter = Quarter.of(history.ds.max())
    mark = training_fingerprint(pipeline, spec, quarter, panel)
    key = RunKey(experiment, "train", f"{pipeline.name}/{spec.name}", mark, quarter)
    with tracked_run(engine, key, source_type="cli", tags={"model": spec.name}) as run:
        if not run.reused:
            fitted = fit_model(pipeline, spec, panel)
            target = Path("staging", pipeline.name, spec.name, quarter.key, mark[:16])
            stored = ArtifactStore(settings).write_directory(target, fitted.save)
            with transaction(engine) as session:
                model = Model(
                    run_id=run.run_id,
                    model_name=spec.name,
                    model_type=spec.model,
                    framework=spec.kind.framework,
                    framework_version=library_versions(spec.kind.framework)[spec.kind.framework],
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
                    metadata_={"sha256": stored.sha256, "source_sha256": file_sha256(path)},
                )
                session.add(model)
                session.flush()
                record_artifact(session, run.run_id, spec.name, "model", stored)
                log_parameters(session, run.run_id, {"model": spec.model, **spec.parameters})
                run.complete(session)
            return run.run_id, model.model_id, fitted, False
    with transaction(engine) as session:
        model = session.scalars(select(Model).where(Model.run_id == run.run_id)).one()
    folder = Path(model.model_file_path)
    verify(folder, (model.metadata_ or {})["sha256"])
    return run.run_id, model.model_id, load_fitted(folder, spec), True


def _record_scores(engine: Engine, run_id: int, model_id: int, scores: pd.DataFrame) -> None:
    with transaction(engine) as session:
        log_metrics(
            session,
            run_id,
            [
                MetricRow(
                    name, float(value), dataset_type="test", context="holdout", model_id=model_id
                )
                for name, value in zip(scores["metric"], scores["value"], strict=True)
            ],
        )


def _write(folder: Path, predictions: pd.DataFrame, metrics: pd.DataFrame) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[Path], None]] = {
        "predictions.parquet": lambda draft: predictions.to_parquet(draft, index=False),
        "predictions.csv": lambda draft: predictions.to_csv(draft, index=False),
        "metrics.csv": lambda draft: metrics.to_csv(draft, index=False),
    }
    for name, write in writers.items():
        write_whole(folder / name, write)
    return tuple(folder / name for name in writers)
