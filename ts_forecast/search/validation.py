"""What a trial is measured on: the last steps that the model may see, forecast as a quarter is.

A window of ``val_size`` steps ends with the last observation before the fit's limit. A trial is fitted
on what lies before the window's first cutoff and forecasts from a cutoff every ``step``; every target
lies in the window. Nothing here reads further than the history that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ts_forecast.cutoffs import SlicePlan, cutoffs_before
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import DatasetError, EvaluationError, TrainingError
from ts_forecast.evaluation.backtest import mean_score
from ts_forecast.evaluation.scoring import seasonal_scales
from ts_forecast.pipeline import Pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.training.search import Search
from ts_forecast.training.trainer import FittedModel


@dataclass(frozen=True)
class Validation:
    """The window that trials are measured on.

    Attributes:
        history: all that the model may see, as observed.
        fit: what a trial is fitted on: until the first cutoff, filled.
        issued: the (series, cutoff) pairs of ``history`` that are forecast.
    """

    history: Panel
    fit: Panel
    issued: Issued
    scales: pd.DataFrame


def plan_validation(
    pipeline: Pipeline, search: Search, history: Panel, quarter: Quarter, *, where: str
) -> Validation:
    """The validation window of a history.

    Series that are not there before the first cutoff are not scored.

    Args:
        history: all that the model may see, as observed.
        where: names pipeline and model in errors.

    Raises:
        TrainingError: the history is too short for the window.
    """
    last = int(history.last_observed.max())
    cutoffs = cutoffs_before(last, pipeline.horizon, pipeline.step, search.val_size)
    first = int(cutoffs[0])
    try:
        fit = history.until(first)
    except DatasetError:
        raise _too_short(pipeline, search, history, where) from None
    plan = SlicePlan(quarter, pipeline.horizon, first + 1, last, cutoffs)
    issued = history.issued(plan, pipeline)
    known = np.isin(np.asarray(history.unique_ids, dtype=object), fit.unique_ids)[issued.series]
    issued = issued[known]
    if not (issued.cutoff == first).any():
        raise _too_short(pipeline, search, history, where)
    return Validation(
        history, fit.filled(pipeline.missing), issued, seasonal_scales(fit, pipeline.season)
    )


def validation_score(
    fitted: FittedModel, pipeline: Pipeline, search: Search, validation: Validation
) -> float:
    """The mean over series of the search's metric.

    Raises:
        PredictionError: a forecast is not finite.
        EvaluationError: no series can be scored: no target was observed, or all are zero.
    """
    panel, issued = validation.history, validation.issued
    outputs = forecast_pairs(fitted, pipeline, panel, issued)
    value = mean_score(pipeline, search.metric, panel, issued, outputs, validation.scales)
    if not np.isfinite(value):
        raise EvaluationError(
            f"Pipeline {pipeline.name}, model {fitted.spec.name}: {search.metric} is not defined for "
            "any series of the validation window.",
            remedy="Choose another `search.metric`, or a larger `search.val_size`.",
        )
    return value


def _too_short(pipeline: Pipeline, search: Search, history: Panel, where: str) -> TrainingError:
    begin, end = history.ds.min(), history.ds.max()
    return TrainingError(
        f"{where}: no series has {pipeline.needed_history} observations before the last "
        f"{search.val_size} steps of what the model may see ({begin} to {end}), on which trials are "
        "measured.",
        remedy="Set a smaller `search.val_size`, or a larger `window_quarters`.",
    )
