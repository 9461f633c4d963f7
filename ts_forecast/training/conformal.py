"""Conformal prediction: intervals as wide as a model's own errors were, for each step ahead.

Split conformal prediction around the points of a model without quantiles; conformalized quantile
regression (Romano, Patterson and Candès 2019) around the bounds of one that has them, of which the first
is the case where both bounds are the point. Errors are in units of their series' scale, so that a large
series says something about a small one. Pure: arrays in, arrays out; where the errors come from is
``evaluation.calibration``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Scores that a step ahead wants of its own before it borrows from its neighbours.
_FEW = 50


@dataclass(frozen=True)
class Widths:
    """How far observations lay outside of intervals.

    Attributes:
        radii: by level in percent, for each step ahead: by how many scales an interval is widened, or
            narrowed if negative; None for too few observations.
        counts: for each step ahead, the observations.
        pooled: for each step ahead, over how many steps to either side they were put together.
    """

    radii: dict[int, tuple[float | None, ...]]
    counts: tuple[int, ...]
    pooled: tuple[int, ...]


def conformal_widths(
    outputs: FloatArray,
    actual: FloatArray,
    scales: FloatArray,
    quantiles: Sequence[float],
    levels: Sequence[int],
    *,
    around_point: bool,
) -> Widths:
    """The widths that hold what was observed; arguments as of ``interval_scores``."""
    counts = np.isfinite(actual).sum(axis=0)
    pools = step_pools(counts, levels)
    scores = {
        level: interval_scores(outputs, actual, scales, quantiles, level, around_point=around_point)
        for level in levels
    }
    return Widths(interval_radii(scores, pools), tuple(counts.tolist()), tuple(pools.tolist()))


def interval_scores(
    outputs: FloatArray,
    actual: FloatArray,
    scales: FloatArray,
    quantiles: Sequence[float],
    level: int,
    *,
    around_point: bool,
) -> FloatArray:
    """By how many scales an observation lies outside of its interval, negative inside: ``[p, horizon]``.

    Args:
        outputs: ``[p, horizon, len(quantiles)]``.
        actual: ``[p, horizon]``, NaN where nothing was observed; so is the score.
        scales: ``[p]``, of the pairs' series.
        around_point: the interval is the median alone.
    """
    low, high = _bounds(outputs, quantiles, level, around_point=around_point)
    return np.asarray(np.maximum(low - actual, actual - high) / scales[:, None])


def finite_sample_quantile(scores: FloatArray, level: int) -> float | None:
    """The smallest score that level percent of all scores do not exceed, one more to come included.

    Its rank is ``ceil((n + 1) * level / 100)``; where that is beyond n, no finite width will do.

    >>> finite_sample_quantile(np.arange(1.0, 10.0), 80)
    8.0
    >>> finite_sample_quantile(np.arange(1.0, 10.0), 95) is None
    True
    """
    rank = -(-(len(scores) + 1) * level // 100)
    if rank > len(scores):
        return None
    return float(np.partition(scores, rank - 1)[rank - 1])


def step_pools(counts: IntArray, levels: Sequence[int]) -> IntArray:
    """For each step ahead, over how many steps to either side its scores are put together.

    Enough for every level to have a finite width, and for the widths to be steady; everything where
    there is no more.

    >>> step_pools(np.array([60, 60, 60]), [80]).tolist()
    [0, 0, 0]
    >>> step_pools(np.array([20, 20, 20, 20]), [80]).tolist()
    [2, 1, 1, 2]
    """
    wanted = max([_FEW, *(-(-level // (100 - level)) for level in levels)])
    steps = len(counts)
    sums = np.concatenate([[0], np.cumsum(counts)])
    pools = np.full(steps, -1, dtype=np.int64)
    at = np.arange(steps)
    reach = 0
    while (pools < 0).any():
        found = sums[np.minimum(at + reach + 1, steps)] - sums[np.maximum(at - reach, 0)]
        pools[(pools < 0) & ((found >= wanted) | (reach >= steps - 1))] = reach
        reach = max(1, 2 * reach)
    return np.minimum(pools, max(steps - 1, 0))


def interval_radii(
    scores: Mapping[int, FloatArray], pools: IntArray
) -> dict[int, tuple[float | None, ...]]:
    """By level and step ahead, by how many scales an interval is widened; None for too few scores.

    Args:
        scores: by level, of ``interval_scores``.
        pools: of ``step_pools``.
    """
    radii = {}
    for level, errors in scores.items():
        steps = []
        for step, reach in enumerate(pools.tolist()):
            near = errors[:, max(step - reach, 0) : step + reach + 1]
            steps.append(finite_sample_quantile(near[np.isfinite(near)], level))
        radii[level] = tuple(steps)
    return radii


def widened(
    outputs: FloatArray,
    radii: Mapping[int, Sequence[float | None]],
    scales: FloatArray,
    quantiles: Sequence[float],
    *,
    around_point: bool,
) -> FloatArray:
    """The outputs with calibrated bounds; the median stays, and quantiles do not cross.

    Args:
        outputs: ``[p, horizon, len(quantiles)]``.
        radii: of ``interval_radii``; where there is no width, bounds around a point are NaN, and a
            model's own stay what they are.
        scales: ``[p]``.
    """
    result = outputs.copy()
    unknown = np.nan if around_point else 0.0
    middle = list(quantiles).index(0.5)
    low = high = outputs[:, :, middle]
    # From the inside out: a wider level never ends within a narrower one.
    for level in sorted(radii):
        lower, upper = _places(quantiles, level)
        width = np.array([unknown if r is None else r for r in radii[level]])
        margin = scales[:, None] * width[None, :]
        bounds = _bounds(outputs, quantiles, level, around_point=around_point)
        low = np.minimum(low, bounds[0] - margin)
        high = np.maximum(high, bounds[1] + margin)
        result[:, :, lower], result[:, :, upper] = low, high
    return result


def series_scales(panel: Panel, issued: Issued, season: int) -> FloatArray:
    """How much each pair's series moves within a season, by what is known at its cutoff.

    The mean of |y[t] - y[t - season]|; where that is zero or not defined yet, of |y|; NaN where that is
    zero too.
    """
    scales = np.full(len(issued), np.nan)
    if not len(issued):
        return scales
    starts = np.flatnonzero(np.diff(issued.series, prepend=-1))
    for part in np.split(np.arange(len(issued)), starts[1:]):
        series = int(issued.series[part[0]])
        begin, end = panel.indptr[series], panel.indptr[series + 1]
        y = panel.y[begin:end]
        known = np.clip(issued.cutoff[part] - panel.first[series] + 1, 0, len(y))
        moved = _running_mean(np.abs(y[season:] - y[:-season]))
        size = _running_mean(np.abs(y))
        by_season = moved[np.maximum(known - season, 0)]
        scales[part] = np.where(by_season > 0, by_season, size[known])
    return np.where(scales > 0, scales, np.nan)


def _running_mean(values: FloatArray) -> FloatArray:
    """The mean of every beginning of an array, the empty one first; NaN where nothing was observed.

    Within one series: sums over many would lose the digits of small ones.
    """
    is_known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(is_known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(is_known)])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _bounds(
    outputs: FloatArray, quantiles: Sequence[float], level: int, *, around_point: bool
) -> tuple[FloatArray, FloatArray]:
    if around_point:
        middle = outputs[:, :, list(quantiles).index(0.5)]
        return middle, middle
    lower, upper = _places(quantiles, level)
    return outputs[:, :, lower], outputs[:, :, upper]


def _places(quantiles: Sequence[float], level: int) -> tuple[int, int]:
    """Where a level's bounds stand among the quantiles, which lie evenly around the median."""
    lower = list(quantiles).index(round(0.5 - level / 200, 6))
    return lower, len(quantiles) - 1 - lower
