"""LEAR: a lasso-estimated autoregression with exogenous columns, one regression a step of the horizon.

Inputs of every step are the blocks of ``lagged_inputs`` and the indicators of the step's own calendar;
which of the hundreds count is the lasso's choice, its penalty an information criterion's (Lago, Marcjasz,
De Schutter and Weron 2021, for any frequency). Forecasts are sums of products. One model a series.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.regression_parameters import LEARParameters, own_parameters
from ts_forecast.training.lagged_inputs import (
    calendar_ahead,
    forecast_anew,
    lagged_inputs,
    last_row,
    levels,
    targets,
    training_pairs,
)

FloatArray = npt.NDArray[np.float64]

# Fewer cutoffs than this say nothing about a lasso; the last season is repeated instead.
_FEWEST = 10


@dataclass(frozen=True)
class LinearSeries:
    """The regressions of one series.

    Attributes:
        weights: ``[horizon, inputs]``, of inputs as they are.
        intercepts: ``[horizon]``.
        low, high: where inputs are cut off, ``[horizon, inputs]``.
        until: grid index of the last row of the panel that it was fitted on.
    """

    weights: FloatArray
    intercepts: FloatArray
    low: FloatArray
    high: FloatArray
    until: int


def fit_linear(pipeline: Pipeline, spec: ModelSpec, panel: Panel) -> dict[str, LinearSeries]:
    """The regressions of the series of a filled panel that have cutoffs enough, by ``unique_id``."""
    asked = own_parameters(LEARParameters, spec.parameters)
    pairs = training_pairs(panel, pipeline, max(asked.lags) * pipeline.season)
    fitted = {}
    for place, unique_id in enumerate(panel.unique_ids):
        mine = pairs.series == place
        if mine.sum() >= _FEWEST:
            own = pairs[mine]
            fitted[unique_id] = _fit_series(pipeline, spec, panel, own, asked)
    return fitted


def forecast_linear(
    pipeline: Pipeline,
    spec: ModelSpec,
    fitted: Mapping[str, LinearSeries],
    panel: Panel,
    issued: Issued,
) -> FloatArray:
    """Forecasts of all pairs, ``[pairs, horizon, outputs]``: the median or point; it has no bounds.

    With ``refit`` the regressions are estimated anew on the way, from what is known then. A series that
    no regression has seen repeats its last season.
    """
    asked = own_parameters(LEARParameters, spec.parameters)
    middle = pipeline.quantiles.index(0.5) if pipeline.quantiles else 0

    def fit(known: Panel) -> Mapping[str, LinearSeries]:
        return fit_linear(pipeline, spec, known)

    def forecast(models: Mapping[str, LinearSeries], part: Issued) -> FloatArray:
        common = lagged_inputs(pipeline, spec, panel, part, asked)
        own = calendar_ahead(pipeline, spec, part)
        outputs = np.full((*own.shape[:2], max(len(pipeline.quantiles), 1)), np.nan)
        for series in np.unique(part.series):
            mine = np.flatnonzero(part.series == series)
            model = models.get(panel.unique_ids[series])
            if model is None:
                model = _last_season(pipeline, common.shape[1] + own.shape[2])
            for step in range(pipeline.horizon):
                inputs = np.hstack([common[mine], own[mine, step]])
                inputs = np.clip(inputs, model.low[step], model.high[step])
                # Sums of rows, each by itself: a forecast does not depend on those beside it.
                outputs[mine, step, middle] = (inputs * model.weights[step]).sum(axis=1)
            outputs[mine, :, middle] += model.intercepts
        return outputs + levels(pipeline, panel, part, asked.level)[:, :, None]

    # Where nothing could be fitted, all may be due.
    until = max((model.until for model in fitted.values()), default=np.iinfo(np.int64).min)
    return forecast_anew(pipeline, panel, issued, asked.refit, fitted, until, fit, forecast)


def _fit_series(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, pairs: Issued, asked: LEARParameters
) -> LinearSeries:
    common = lagged_inputs(pipeline, spec, panel, pairs, asked)
    own = calendar_ahead(pipeline, spec, pairs)
    actual = targets(panel, pipeline, pairs) - levels(pipeline, panel, pairs, asked.level)
    fits = []
    for window in asked.windows or [len(pairs)]:
        last = slice(max(0, len(pairs) - window), None)
        fits.append(_fit_window(common[last], own[last], actual[last], asked.criterion))
    weights, intercepts = (np.mean(parts, axis=0) for parts in zip(*fits, strict=True))
    low, high = (
        np.hstack(
            [
                np.broadcast_to(find(common, axis=0), (len(own[0]), common.shape[1])),
                find(own, axis=0),
            ]
        )
        for find in (np.min, np.max)
    )
    # A trend may leave what was seen, by as much as was seen; a mistyped load may not leave the world.
    return LinearSeries(weights, intercepts, 2 * low - high, 2 * high - low, last_row(panel))


def _fit_window(
    common: FloatArray, own: FloatArray, actual: FloatArray, criterion: str
) -> tuple[FloatArray, FloatArray]:
    n_common, horizon = common.shape[1], actual.shape[1]
    weights = np.zeros((horizon, n_common + own.shape[2]))
    intercepts = np.empty(horizon)
    for step in range(horizon):
        inputs = np.hstack([common, own[:, step]])
        center, scale = inputs.mean(axis=0), inputs.std(axis=0)
        # What never moved says nothing, and may move later by more than the fit can know.
        moves = scale > 1e-9 * np.maximum(np.abs(center), 1.0)
        scaled = (inputs[:, moves] - center[moves]) / scale[moves]
        level = actual[:, step].mean()
        weights[step, moves] = _lasso(scaled, actual[:, step] - level, criterion) / scale[moves]
        intercepts[step] = level - weights[step] @ center
    return weights, intercepts


def _lasso(inputs: FloatArray, actual: FloatArray, criterion: str) -> FloatArray:
    """The point of the lasso's path with the least information criterion.

    scikit-learn's LassoLarsIC refuses more inputs than rows; the criterion of the logarithm of the
    errors' squares does not need the noise that it cannot estimate there.
    """
    from sklearn.linear_model import lars_path

    n = len(actual)
    if not actual.any():
        return np.zeros(inputs.shape[1])
    with warnings.catch_warnings():
        # The path ends early where inputs are collinear; what it has found until then counts.
        warnings.simplefilter("ignore")
        _, _, path = lars_path(
            inputs, actual, method="lasso", Gram=inputs.T @ inputs, max_iter=min(500, n // 2)
        )
    squares = ((actual[:, None] - inputs @ path) ** 2).sum(axis=0)
    used = np.count_nonzero(path, axis=0)
    penalty = 2.0 if criterion == "aic" else np.log(n)
    noise = np.maximum(squares, np.finfo(float).eps * squares[0])
    chosen: npt.NDArray[np.float64] = path[:, np.argmin(n * np.log(noise / n) + penalty * used)]
    return chosen


def _last_season(pipeline: Pipeline, n_inputs: int) -> LinearSeries:
    weights = np.zeros((pipeline.horizon, n_inputs))
    steps = np.arange(pipeline.horizon)
    weights[steps, steps % pipeline.season] = 1.0
    bounds = np.full(weights.shape, np.inf)
    return LinearSeries(weights, np.zeros(pipeline.horizon), -bounds, bounds, -1)
