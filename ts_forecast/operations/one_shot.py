"""Forecasting one file once: fit, measure on a holdout, forecast what comes, record all of it.

The last horizon of the file is held out: models are fitted on what lies before it, measured on it, and
then forecast from the end of the file. A deployment does the same every quarter, through Dagster.
Fitting a model or finding it on record is ``one_shot_models``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.readers import read_source
from ts_forecast.datasets.validation import check_claim
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import DatasetError, SourceError
from ts_forecast.evaluation.scoring import seasonal_scales
from ts_forecast.files import write_whole
from ts_forecast.model_catalogue import catalogue
from ts_forecast.operations.columns import Columns
from ts_forecast.operations.forecast_rows import by_quarter, forecast_frame, measure, slice_rows
from ts_forecast.operations.one_shot_models import RecordedModel, recorded_model
from ts_forecast.pipeline import Missing, Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.places import Place
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.predictions.slice import publish_slice
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import fingerprint, library_versions
from ts_forecast.tracking.measurements import MetricRow, log_metrics
from ts_forecast.tracking.runs import RunKey, supersede, tracked_run

BASELINE = "SeasonalNaive"


@dataclass(frozen=True)
class Request:
    """What to forecast, and how.

    Attributes:
        models: class names; the seasonal naive is added if it is not among them.
        parameters: given to every neural model.
        force: fit although an identical model is on record.
    """

    path: Path
    columns: Columns
    models: tuple[str, ...]
    horizons: tuple[int, ...]
    output_dir: Place
    parameters: dict[str, Any] = field(default_factory=dict)
    levels: tuple[int, ...] = ()
    seed: int = 1
    missing: Missing = "interpolate"
    force: bool = False

    def pipeline(self, horizon: int) -> Pipeline:
        """The forecasting problem of one horizon.

        Raises:
            PipelineError: a model is unknown or refuses a parameter, or the horizon is impossible.
        """
        wanted = [*self.models, *([] if BASELINE in self.models else [BASELINE])]
        content = {
            "name": f"{_name(self.path)}_h{horizon}",
            "description": f"One-shot forecasts of {self.path.name}",
            "source": {**self.columns.source, "files": str(self.path)},
            "frequency": self.columns.frequency,
            "horizon": horizon,
            "start": "1700-01-01",
            "missing": self.missing,
            "models": [
                {"model": name, "parameters": self.parameters if _is_neural(name) else {}}
                for name in wanted
            ],
            "baseline": BASELINE,
            "levels": list(self.levels),
            "seed": self.seed,
        }
        return parse_pipeline(content, origin="ts-forecast run")


@dataclass(frozen=True)
class OneShot:
    """What a one-shot run gave.

    Attributes:
        predictions: rows of ``forecast_frame``, of the holdout and of the future.
        metrics: ``model, horizon, metric, value`` over the holdout; ``skill`` is that of MAE against
            the seasonal naive.
        files: what was written into the output folder.
        reused: models that were on record and were not fitted again.
        missing: values that the file lacks inside its series and that were filled.
    """

    predictions: pd.DataFrame
    metrics: pd.DataFrame
    files: tuple[Place, ...]
    reused: int
    missing: int


def forecast_file(
    engine: Engine,
    settings: Settings,
    request: Request,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> OneShot:
    """Forecast a file with every model and horizon; writes files, and rows in several transactions.

    Everything that can be refused is refused before the first fit. What one horizon recorded stays if
    a later one fails; the output files are written at the end, or not at all.

    Args:
        progress: called with a line before each model.

    Raises:
        PipelineError: a model is unknown or refuses a parameter.
        SourceError: the file is wrong; nothing was written.
        DatasetError: the file is too short for a horizon.
        TrainingError: a fit failed.
    """
    pipelines = [request.pipeline(horizon) for horizon in request.horizons]
    frame = read_source(request.path, pipelines[0])
    check_claim(request.path, frame, pipelines[0])
    panel = Panel.from_frame(frame, pipelines[0])
    missing = _count_missing(panel, request)
    cutoffs = [_holdout_cutoff(panel, pipeline) for pipeline in pipelines]
    predictions, metrics, reused = [], [], 0
    for pipeline, cutoff in zip(pipelines, cutoffs, strict=True):
        forecasts, scores, found = _forecast(
            engine, settings, request, pipeline, panel, cutoff, progress
        )
        predictions.append(forecasts)
        metrics.append(scores)
        reused += found
    result = pd.concat(predictions, ignore_index=True), pd.concat(metrics, ignore_index=True)
    return OneShot(*result, _write(request.output_dir, *result), reused, missing)


def _forecast(
    engine: Engine,
    settings: Settings,
    request: Request,
    pipeline: Pipeline,
    panel: Panel,
    cutoff: int,
    progress: Callable[[str], None],
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """One horizon: forecasts, scores, and how many models were on record."""
    experiment = in_transaction(engine, lambda session: ensure_experiment(session, pipeline))
    history = panel.until(cutoff)
    scales = seasonal_scales(history, pipeline.season)
    issued = _issued(panel, pipeline, cutoff)
    frames, tables, scores, models = [], [], [], []
    for spec in pipeline.models:
        progress(f"{spec.name}, {pipeline.horizon} steps ahead")
        model = recorded_model(
            engine, settings, pipeline, spec, history, experiment, request.path, force=request.force
        )
        outputs = forecast_pairs(model.fitted, pipeline, panel, issued)
        frame = forecast_frame(pipeline, spec, panel, issued, outputs)
        rows = slice_rows(frame, model.model_id, pipeline)
        models.append(model)
        frames.append(frame)
        tables.append(rows)
        scores.append(measure(rows, pipeline, spec, scales))
    metrics = _with_skill(pd.concat(scores, ignore_index=True))
    _publish(engine, pipeline, experiment, panel, models, pa.concat_tables(tables), metrics)
    return pd.concat(frames, ignore_index=True), metrics, sum(model.reused for model in models)


def _publish(
    engine: Engine,
    pipeline: Pipeline,
    experiment: int,
    panel: Panel,
    models: list[RecordedModel],
    rows: pa.Table,
    metrics: pd.DataFrame,
) -> None:
    """Swap the slices in and record the scores, under a run of their own."""
    mark = fingerprint(
        {
            "kind": "predict",
            "models": [[model.model_id, model.sha256] for model in models],
            "data": panel.content_hash(),
            "levels": list(pipeline.levels),
            "missing": pipeline.missing,
            "libraries": library_versions("neuralforecast", "statsforecast", "torch"),
        }
    )
    quarter = Quarter.of(panel.grid.timestamps(np.array([panel.last_observed.max()]))[0])
    key = RunKey(experiment, "predict", pipeline.name, mark, quarter)
    ids = {spec.name: model.model_id for spec, model in zip(pipeline.models, models, strict=True)}
    with tracked_run(engine, key, source_type="cli") as run:
        # Of a reused run too: another choice of models may have taken the slice. Equal rows stay.
        for target, part in by_quarter(rows).items():
            publish_slice(
                engine, experiment_id=experiment, run_id=run.run_id, quarter=target, rows=part
            )
        if run.reused:
            return

        def record(session: Session) -> None:
            log_metrics(
                session,
                run.run_id,
                [
                    MetricRow(
                        metric, value, dataset_type="test", context="holdout", model_id=ids[model]
                    )
                    for model, metric, value in zip(
                        metrics["model"], metrics["metric"], metrics["value"], strict=True
                    )
                ],
            )
            supersede(session, experiment, "predict", quarter, keep=run.run_id)
            run.complete(session, {"rows": rows.num_rows, "models": list(ids.values())})

        in_transaction(engine, record)


def _issued(panel: Panel, pipeline: Pipeline, cutoff: int) -> Issued:
    """From the holdout's cutoff and from the end, every series that has enough behind it."""
    ends = np.array([cutoff, int(panel.last_observed.max())])
    series = np.repeat(np.arange(panel.n_series), 2)
    cutoffs = np.tile(ends, panel.n_series)
    enough = (cutoffs - panel.first[series] + 1 >= pipeline.needed_history) & (
        panel.last_observed[series] >= cutoffs
    )
    return Issued(series[enough], cutoffs[enough])


def _count_missing(panel: Panel, request: Request) -> int:
    inside = panel.index <= panel.last_observed[panel.series_of_row]
    lacking = np.flatnonzero(inside & ~panel.observed)
    if len(lacking) and request.missing == "error":
        series = panel.unique_ids[int(panel.series_of_row[lacking[0]])]
        raise SourceError(
            f"{request.path}: series {series!r} has no value at {panel.ds[lacking[0]]} "
            f"({len(lacking)} such places in all).",
            remedy="Fill them, or choose --missing interpolate or ffill.",
        )
    return len(lacking)


def _holdout_cutoff(panel: Panel, pipeline: Pipeline) -> int:
    last = int(panel.last_observed.max())
    longest = last - int(panel.first.min()) + 1
    needed = pipeline.needed_history + pipeline.horizon
    if longest < needed:
        raise DatasetError(
            f"The longest series has {longest} observations; a horizon of {pipeline.horizon} needs "
            f"{needed}: a season to learn from and the holdout.",
            remedy="Give a shorter horizon, or more history.",
        )
    return last - pipeline.horizon


def _with_skill(metrics: pd.DataFrame) -> pd.DataFrame:
    errors = metrics[metrics["metric"] == "mae"].set_index("model")["value"]
    if not errors.get(BASELINE):
        return metrics
    skill = (1 - errors.drop(BASELINE) / errors[BASELINE]).rename("value").reset_index()
    skill = skill.assign(horizon=metrics["horizon"].iloc[0], metric="skill")
    return pd.concat([metrics, skill[metrics.columns]], ignore_index=True)


def _name(path: Path) -> str:
    """A pipeline name that other files of this name do not share."""
    stem = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:30] or "file"
    return f"one_shot_{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def _is_neural(name: str) -> bool:
    return name in catalogue() and catalogue()[name].is_neural


def _write(folder: Place, predictions: pd.DataFrame, metrics: pd.DataFrame) -> tuple[Place, ...]:
    writers: dict[str, Callable[[Path], None]] = {
        "predictions.parquet": lambda draft: predictions.to_parquet(draft, index=False),
        "predictions.csv": lambda draft: predictions.to_csv(draft, index=False),
        "metrics.csv": lambda draft: metrics.to_csv(draft, index=False),
    }
    for name, write in writers.items():
        write_whole(folder / name, write)
    return tuple(folder / name for name in writers)
