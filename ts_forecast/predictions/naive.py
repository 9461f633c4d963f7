"""Naive forecasts of many cutoffs at once.

Ten thousand series and ninety cutoffs are 900,000 forecasts; statsforecast makes one at a time, a
millisecond each. Here are those of its models that are a formula over the history. Every one equals
the library's, intervals included (tests compare); a history for which the formula does not hold is
left to the library.

Only running sums of terms that cannot cancel are used, so that a long history loses no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# What a formula gives: the forecast and its standard error, ``[n_cutoffs, horizon]``.
_Path = tuple[FloatArray, FloatArray | None]


def can_vectorize(model: Any) -> bool:
    """Whether a statsforecast model is one of those that are computed here."""
    return type(model).__name__ in _FORMULAS


def shortest_history(model: Any) -> int:
    """Observations from which on a formula holds; the library decides about shorter ones."""
    season = getattr(model, "season_length", 1)
    return max(3, season * getattr(model, "window_size", 1))


def naive_forecasts(
    model: Any,
    y: FloatArray,
    lengths: IntArray,
    horizon: int,
    quantiles: tuple[float, ...],
) -> FloatArray:
    """Forecasts of one series from several cutoffs, ``[len(lengths), horizon, n_outputs]``.

    Args:
        model: a statsforecast object for which ``can_vectorize`` holds.
        y: the history, without NaN.
        lengths: how much of the history each cutoff knows, at least ``shortest_history``.
        quantiles: ascending probabilities around the median; empty: the mean alone.

    Returns:
        Quantiles of the normal distribution around the mean, as the library has them; NaN around the
        mean where the model gives no intervals.
    """
    mean, error = _FORMULAS[type(model).__name__](model, y, lengths, horizon)
    if not quantiles:
        return mean[:, :, None]
    scores = np.array([NormalDist().inv_cdf(q) for q in quantiles])
    if error is None:
        return np.where(scores == 0, mean[:, :, None], np.nan)
    return mean[:, :, None] + scores * error[:, :, None]


def _naive(model: Any, y: FloatArray, lengths: IntArray, horizon: int) -> _Path:
    mean = np.repeat(y[lengths - 1][:, None], horizon, axis=1)
    squares = np.cumsum(np.diff(y) ** 2)
    sigma = np.sqrt(squares[lengths - 2] / (lengths - 1))
    return mean, sigma[:, None] * np.sqrt(np.arange(1, horizon + 1))


def _seasonal_naive(model: Any, y: FloatArray, lengths: IntArray, horizon: int) -> _Path:
    season = model.season_length
    ahead = np.arange(horizon)
    mean = y[lengths[:, None] - season + ahead % season]
    squares = np.concatenate([[0.0], np.cumsum((y[season:] - y[:-season]) ** 2)])
    pairs = lengths - season
    sigma = np.sqrt(squares[pairs] / np.maximum(pairs, 1))
    return mean, sigma[:, None] * np.sqrt(ahead // season + 1)


def _historic_average(model: Any, y: FloatArray, lengths: IntArray, horizon: int) -> _Path:
    means, spread = _running_moments(y)
    sigma = np.sqrt(spread[lengths - 1] / (lengths - 1)) * np.sqrt(1 + 1 / lengths)
    shape = (len(lengths), horizon)
    return (
        np.broadcast_to(means[lengths - 1][:, None], shape),
        np.broadcast_to(sigma[:, None], shape),
    )


def _random_walk_with_drift(model: Any, y: FloatArray, lengths: IntArray, horizon: int) -> _Path:
    steps = np.arange(1, horizon + 1)
    slope = (y[lengths - 1] - y[0]) / (lengths - 1)
    mean = slope[:, None] * steps + y[lengths - 1][:, None]
    _, spread = _running_moments(np.diff(y))
    sigma = np.sqrt(spread[lengths - 2] / (lengths - 1))
    return mean, sigma[:, None] * np.sqrt(steps * (1 + steps / (lengths - 1)[:, None]))


def _window_average(model: Any, y: FloatArray, lengths: IntArray, horizon: int) -> _Path:
    rows = lengths[:, None] - np.arange(model.window_size, 0, -1)
    return np.repeat(y[rows].mean(axis=1)[:, None], horizon, axis=1), None


def _seasonal_window_average(model: Any, y: FloatArray, lengths: IntArray, horizon: int) -> _Path:
    season, size = model.season_length, model.window_size
    rows = lengths[:, None] - np.arange(season * size, 0, -1)
    averages = y[rows].reshape(len(lengths), size, season).mean(axis=1)
    return averages[:, np.arange(horizon) % season], None


def _running_moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean, and sum of squared deviations from it, of every beginning of an array (Welford's)."""
    means = np.cumsum(values) / np.arange(1, len(values) + 1)
    before = np.concatenate([[0.0], means[:-1]])
    # Both factors have one sign, up to rounding.
    growth = np.maximum((values - before) * (values - means), 0.0)
    growth[0] = 0.0
    return means, np.cumsum(growth)


_FORMULAS: dict[str, Callable[[Any, FloatArray, IntArray, int], _Path]] = {
    "HistoricAverage": _historic_average,
    "Naive": _naive,
    "RandomWalkWithDrift": _random_walk_with_drift,
    "SeasonalNaive": _seasonal_naive,
    "SeasonalWindowAverage": _seasonal_window_average,
    "WindowAverage": _window_average,
}
