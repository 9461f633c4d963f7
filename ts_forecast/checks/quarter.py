"""The checks of each of a quarter's assets, with what they read from the database and its files.

What is checked of what is read is decided in the other files of this room; which checks the pipeline
file leaves out, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
from sqlalchemy.orm import Session

from ts_forecast.check_limits import CheckName
from ts_forecast.checks.accuracy import check_accuracy, judged_metric
from ts_forecast.checks.drift import check_drift
from ts_forecast.checks.forecasts import check_complete, check_values, rows_extent, slice_extent
from ts_forecast.checks.leakage import check_leakage
from ts_forecast.checks.observations import check_observations
from ts_forecast.checks.result import CheckResult, RefusedSliceError
from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.quarter import current_dataset, load_panel
from ts_forecast.datasets.store import load_frame
from ts_forecast.errors import DatasetError, TrainingError
from ts_forecast.evaluation.leaderboard import leaderboard, quarter_accuracy
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import place
from ts_forecast.predictions.quarter import Inspection
from ts_forecast.quarters import Quarter
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import experiment_id
from ts_forecast.tracking.runs import current_run
from ts_forecast.training.quarter import trained_model, training_history

OF_SOURCES: tuple[CheckName, ...] = ("set_aside",)
OF_DATASETS: tuple[CheckName, ...] = ("schema", "duplicates", "gaps", "freshness")
OF_FEATURES: tuple[CheckName, ...] = ("drift",)
OF_MODELS: tuple[CheckName, ...] = ("leakage",)
OF_PREDICTIONS: tuple[CheckName, ...] = ("leakage", "complete_slice", "sane_values")
OF_SUMMARIES: tuple[CheckName, ...] = ("beats_baseline", "accuracy_decay", "interval_coverage")


def names_of(pipeline: Pipeline, names: Iterable[CheckName]) -> tuple[CheckName, ...]:
    """Those of the checks that are made for a pipeline."""
    needless: set[CheckName] = set(pipeline.checks.skip)
    if not pipeline.levels:
        needless.add("interval_coverage")
    if pipeline.baseline_model is None:
        needless.add("beats_baseline")
    if judged_metric(pipeline) is None:
        needless |= {"beats_baseline", "accuracy_decay"}
    return tuple(name for name in names if name not in needless)


def check_dataset(
    session: Session, pipeline: Pipeline, quarter: Quarter, *, now: datetime | None = None
) -> list[CheckResult]:
    """Checks of the stored observations.

    Args:
        now: with a zone; None for the clock's.

    Raises:
        DatasetError: the quarter was never ingested, or its file is damaged.
    """
    moment = pd.Timestamp((now or datetime.now(UTC)).astimezone(UTC)).tz_localize(None)
    frame = _frame(session, pipeline, quarter)
    return _wanted(pipeline, check_observations(frame, pipeline, quarter, now=moment))


def check_features(session: Session, pipeline: Pipeline, quarter: Quarter) -> list[CheckResult]:
    """Drift against the training window, as far as that was ingested.

    Raises:
        DatasetError: the quarter was never ingested, or a file is damaged.
    """
    if "drift" in pipeline.checks.skip:
        return []
    frame = _frame(session, pipeline, quarter)
    try:
        window = training_history(session, pipeline, quarter)
    except DatasetError as error:
        # The first quarter, or one whose window is ingested when its models are trained.
        return [CheckResult("drift", True, f"not compared: {error.problem}")]
    return [check_drift(window, frame, pipeline)]


def check_model(
    session: Session, pipeline: Pipeline, quarter: Quarter, name: str
) -> list[CheckResult]:
    """Leakage of one model.

    Raises:
        TrainingError: the model was never trained.
    """
    model = trained_model(session, experiment_id(session, pipeline.name), name, quarter)
    if model is None:
        raise TrainingError(
            f"Pipeline {pipeline.name}, {quarter.label}: the model {name} was never trained.",
            remedy=f"Materialize {pipeline.name}/trained_models/{name} for {quarter.key}.",
        )
    return _wanted(pipeline, [check_leakage(session, pipeline, quarter, model)])


def check_slice(session: Session, pipeline: Pipeline, quarter: Quarter) -> list[CheckResult]:
    """Leakage of the models of a slice, and whether it is complete and sane.

    Raises:
        DatasetError: the quarter or its window was never ingested.
        TrainingError: a model was never trained.
    """
    results = []
    if "leakage" not in pipeline.checks.skip:
        found = [check_model(session, pipeline, quarter, spec.name)[0] for spec in pipeline.models]
        results.append(_together(found))
    if {"complete_slice", "sane_values"} - set(pipeline.checks.skip):
        plan = pipeline.slice_plan(quarter)
        extent = slice_extent(session, experiment_id(session, pipeline.name), quarter)
        panel = slice_history(session, pipeline, quarter)
        results += [
            check_complete(extent, panel, plan, pipeline),
            check_values(extent, panel, pipeline),
        ]
    return _wanted(pipeline, results)


def refuse_wrong_slice(pipeline: Pipeline, quarter: Quarter) -> Inspection:
    """What ``forecast_quarter`` asks before it publishes: the checks of ``check_slice``.

    Raises:
        RefusedSliceError: from what is returned, if one of them blocks.
    """

    def inspect(session: Session, rows: pa.Table, models: Sequence[Model], panel: Panel) -> None:
        found = [check_leakage(session, pipeline, quarter, model) for model in models]
        extent = rows_extent(rows, {model.model_id: model.model_name for model in models})
        plan = pipeline.slice_plan(quarter)
        results = _wanted(
            pipeline,
            [
                _together(found),
                check_complete(extent, panel, plan, pipeline),
                check_values(extent, panel, pipeline),
            ],
        )
        if any(result.is_blocking for result in results):
            raise RefusedSliceError.of(f"Pipeline {pipeline.name}, {quarter.label}", results)

    return inspect


def check_scores(session: Session, pipeline: Pipeline, quarter: Quarter) -> list[CheckResult]:
    """Skill, decay and coverage; passed with a note where there are no scores yet."""
    experiment = experiment_id(session, pipeline.name)
    run = current_run(session, experiment, "evaluate", quarter)
    names = names_of(pipeline, OF_SUMMARIES)
    if run is None:
        return [CheckResult(name, True, "no actual value yet: nothing is scored") for name in names]
    metric = judged_metric(pipeline)
    board = leaderboard(session, experiment, metric=metric or pipeline.metrics[0])
    previous = board[board["quarter"] < quarter.label]
    results = check_accuracy(quarter_accuracy(session, run.run_id), previous, pipeline)
    return [result for result in results if result.name in names]


def slice_history(session: Session, pipeline: Pipeline, quarter: Quarter) -> Panel:
    """Window, quarter and what is known ahead: what the slice was made from."""
    window = pipeline.window(quarter)
    plan = pipeline.slice_plan(quarter)
    panel = load_panel(session, pipeline, window[0] if window else quarter, quarter)
    return panel.until(plan.last_target + plan.horizon)


def _frame(session: Session, pipeline: Pipeline, quarter: Quarter) -> pd.DataFrame:
    dataset = current_dataset(session, pipeline, quarter)
    if dataset is None:
        raise DatasetError(
            f"Pipeline {pipeline.name} has no dataset of {quarter.label}.",
            remedy=f"Materialize {pipeline.name}/datasets for {quarter.key} first.",
        )
    return load_frame(place(dataset.file_path), dataset.file_hash or "")


def _wanted(pipeline: Pipeline, results: list[CheckResult]) -> list[CheckResult]:
    return [result for result in results if result.name not in pipeline.checks.skip]


def _together(results: list[CheckResult]) -> CheckResult:
    """One leakage result of a slice's models."""
    bad = [result for result in results if not result.passed]
    reason = "; ".join(result.reason for result in bad)
    return CheckResult(
        "leakage",
        not bad,
        reason or f"{len(results)} models, none has seen the quarter",
        {"models": len(results), "leaking_models": len(bad)},
    )
