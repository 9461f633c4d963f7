"""What a regression reads at a cutoff: whole seasons of the past, and what is known ahead.

A block is one season of values. Lag 1 is the block that ends at the cutoff, lag 7 the one six seasons
before it; of columns that are known ahead there is also the block of the horizon itself. Nothing after
a cutoff is read but those. Models that are fitted on these inputs are ``linear``, ``boosted`` and
``dense``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.datasets.calendar import calendar_values
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.regression_parameters import LevelParameters

FloatArray = npt.NDArray[np.float64]

_PAIRS_AT_ONCE = 2_000
_DUMMIES = {"hour": 24, "weekday": 7, "month": 12}


Fitted = TypeVar("Fitted")


def training_pairs(panel: Panel, pipeline: Pipeline, reach: int) -> Issued:
    """The cutoffs of a filled panel that can be learnt from: those of the pipeline's step.

    A cutoff counts where ``reach`` steps of history and the whole horizon are in the panel. A series
    that has no such cutoff gives those that know a season.
    """
    series, cutoffs = [], []
    ends = panel.first + np.diff(panel.indptr) - 1
    for place, (first, end) in enumerate(zip(panel.first, ends, strict=True)):
        for wanted in (reach, pipeline.season):
            own = np.arange(first + wanted - 1, end - pipeline.horizon + 1, dtype=np.int64)
            own = own[(own + 1) % pipeline.step == 0]
            if len(own):
                break
        series.append(np.full(len(own), place))
        cutoffs.append(own)
    return Issued(np.concatenate(series), np.concatenate(cutoffs))


def forecast_anew(
    pipeline: Pipeline,
    panel: Panel,
    issued: Issued,
    every: int,
    fitted: Fitted,
    until: int,
    fit: Callable[[Panel], Fitted],
    forecast: Callable[[Fitted, Issued], FloatArray],
) -> FloatArray:
    """Forecasts of all pairs, ``[pairs, horizon, outputs]``, by what was fitted or is fitted anew on the way.

    New fits are due at every so many cutoffs of the pipeline's step, counted from the grid's origin, so
    that a forecast does not depend on which others are asked for.

    Args:
        every: 0 for never.
        until: grid index of the last row that the fitted model has seen.
        fit: given a filled panel that ends with what is known at a cutoff.
        forecast: of some of the pairs; what they read is in memory at once.
    """
    step, anchors = pipeline.step, np.full(len(issued), until, dtype=np.int64)
    if every:
        due = (issued.cutoff + 1) // step // every * every * step - 1
        anchors = np.maximum(due, until)
    outputs = np.empty((len(issued), pipeline.horizon, max(len(pipeline.quantiles), 1)))
    for anchor in np.unique(anchors).tolist():
        model = fitted
        if anchor > until:
            model = fit(panel.until(anchor).filled(pipeline.missing))
        places = np.flatnonzero(anchors == anchor)
        for begin in range(0, len(places), _PAIRS_AT_ONCE):
            some = places[begin : begin + _PAIRS_AT_ONCE]
            outputs[some] = forecast(model, issued[some])
    return outputs


def last_row(panel: Panel) -> int:
    """Grid index of the last row of a panel: up to where a fit has seen."""
    return int((panel.first + np.diff(panel.indptr) - 1).max())


def targets(panel: Panel, pipeline: Pipeline, pairs: Issued) -> FloatArray:
    """What came after the cutoffs of ``training_pairs``, ``[pairs, horizon]``."""
    steps = pairs.cutoff[:, None] + np.arange(1, pipeline.horizon + 1)
    return panel.y[panel.rows_at(pairs.series[:, None], steps)]


def lagged_inputs(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, pairs: Issued, asked: LevelParameters
) -> FloatArray:
    """What all steps of the horizon read, ``[pairs, inputs]``: blocks of the past, and what is known ahead.

    The block of lag 1 stands first; the target's are measured from the level that is asked for.
    """
    count = len(pairs)
    past = past_blocks(panel, pipeline, pairs, sorted(asked.lags)).reshape(count, -1)
    blocks = [past - levels(pipeline, panel, pairs, asked.level)]
    blocks.append(exogenous_ahead(panel, pipeline, spec, pairs).reshape(count, -1))
    if asked.exogenous_lags:
        columns = exogenous_past(panel, pipeline, spec, pairs, asked.exogenous_lags)
        blocks.append(columns.reshape(count, -1))
    return np.hstack(blocks)


def levels(pipeline: Pipeline, panel: Panel, pairs: Issued, seasons: int) -> FloatArray:
    """The mean of the last seasons at each cutoff, ``[pairs, 1]``; 0 where no level is asked for.

    What the target is measured from then, in forecasts and lags: a level that was never seen when the
    model was fitted is no stranger to it.
    """
    if not seasons:
        return np.zeros((len(pairs), 1))
    blocks = past_blocks(panel, pipeline, pairs, range(1, seasons + 1))
    return blocks.mean(axis=(1, 2))[:, None]


def past_blocks(panel: Panel, pipeline: Pipeline, pairs: Issued, lags: Sequence[int]) -> FloatArray:
    """The target's blocks, ``[pairs, len(lags), season]``, as they were known at the cutoffs.

    Before a series starts, its first value stands.
    """
    season = pipeline.season
    length = max(lags) * season
    y, mask = panel.windows(pairs, length, pipeline.missing)
    begin = np.argmax(mask > 0, axis=1)
    filled = np.where(mask > 0, y, np.take_along_axis(y, begin[:, None], axis=1))
    blocks = filled.reshape(len(pairs), max(lags), season)
    return blocks[:, [max(lags) - lag for lag in lags]]


def exogenous_past(
    panel: Panel, pipeline: Pipeline, spec: ModelSpec, pairs: Issued, lags: Sequence[int]
) -> FloatArray:
    """Blocks of the named columns, ``[pairs, columns, len(lags), season]``; future ones first."""
    chosen = pipeline.exogenous_of(spec)
    season = pipeline.season
    back = np.array([lag * season for lag in lags], dtype=np.int64)
    steps = np.arange(1, season + 1)[None, :] - back[:, None]
    return _values(panel, pairs, (*chosen.future, *chosen.historic), steps)


def exogenous_ahead(panel: Panel, pipeline: Pipeline, spec: ModelSpec, pairs: Issued) -> FloatArray:
    """The named columns that are known ahead, over the horizon, ``[pairs, columns, horizon]``."""
    chosen = pipeline.exogenous_of(spec)
    return _values(panel, pairs, chosen.future, np.arange(1, pipeline.horizon + 1))


def calendar_ahead(pipeline: Pipeline, spec: ModelSpec, pairs: Issued) -> FloatArray:
    """The calendar features at every target, ``[pairs, horizon, columns]``.

    Hour, weekday and month have an indicator for each of their values; the others, whose values are
    many, their sine and cosine.
    """
    features = pipeline.exogenous_of(spec).calendar
    steps = pairs.cutoff[:, None] + np.arange(1, pipeline.horizon + 1)
    moments = pipeline.grid.timestamps(steps.reshape(-1))
    parts = [
        np.eye(_DUMMIES[name])[_codes(moments, name)]
        if name in _DUMMIES
        else calendar_values(moments, [name])
        for name in features
    ]
    flat = np.hstack(parts) if parts else np.empty((steps.size, 0))
    return flat.reshape(*steps.shape, flat.shape[1])


def _codes(moments: pd.DatetimeIndex, feature: str) -> npt.NDArray[np.int64]:
    codes = getattr(moments, feature).to_numpy().astype(np.int64)
    return codes - 1 if feature == "month" else codes


def _values(
    panel: Panel, pairs: Issued, names: Sequence[str], steps: npt.NDArray[np.int64]
) -> FloatArray:
    """Columns at steps after the cutoffs, ``[pairs, columns, *steps.shape]``.

    Before a series starts, its first row stands.
    """
    if not names:
        return np.empty((len(pairs), 0, *steps.shape))
    places = [panel.columns.index(name) for name in names]
    shape = (-1, *(1,) * steps.ndim)
    at = pairs.cutoff.reshape(shape) + steps
    at = np.maximum(at, panel.first[pairs.series].reshape(shape))
    rows = panel.rows_at(pairs.series.reshape(shape), at)
    return np.moveaxis(panel.filled_exogenous()[rows][..., places], -1, 1)
