"""Calibrating a model: what its errors were from cutoffs that it may look back on.

The model itself has seen them, so a twin is fitted on what lies before them and forecasts from each as a
quarter is forecast. The window is the last quarter of what the model may see (two horizons where these
are longer, at most half of the history), so nothing here knows anything of the quarter.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.cutoffs import SlicePlan, cutoffs_before
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import DatasetError, OutOfMemoryError, PredictionError, TrainingError
from ts_forecast.evaluation.backtest import actual_values, mean_score
from ts_forecast.evaluation.scoring import seasonal_scales
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.training.calibration import (
    Calibration,
    TwinForecasts,
    gives_quantiles,
    has_conformal_intervals,
    keeps_twin,
)
from ts_forecast.training.conformal import (
    conformal_widths,
    series_scales,
    widened,
)
from ts_forecast.training.trainer import fit_model

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Forecasts of a calibration: more make widths no steadier, and cost memory.
_MOST_FORECASTS = 5_000_000
# Numbers of a twin's forecasts that are stored: 8 MB.
_MOST_KEPT = 1_000_000
_log = logging.getLogger(__name__)


def calibrate(pipeline: Pipeline, spec: ModelSpec, history: Panel, quarter: Quarter) -> Calibration:
    """Forecast the end of a history with a twin, and measure how far it was off.

    A history that is too short gives a calibration without widths and error, whose note says why: the
    model forecasts without conformal intervals.

    Args:
        history: all that the model may see, as observed.
        quarter: the one that the model is for.

    Raises:
        OutOfMemoryError: memory does not suffice to fit the twin.
    """
    cutoffs = calibration_cutoffs(pipeline, history, quarter)
    if not len(cutoffs):
        return _without(pipeline, spec, "the history is shorter than two horizons")
    try:
        fit = history.until(int(cutoffs[0]))
        issued = _issued(pipeline, history, fit, quarter, cutoffs)
        if not len(issued):
            return _without(pipeline, spec, "no series has enough history before the window")
        twin = fit_model(pipeline, spec, fit.filled(pipeline.missing))
        outputs = forecast_pairs(twin, pipeline, history, issued)
    except OutOfMemoryError:
        raise
    except (DatasetError, TrainingError, PredictionError) as error:
        _log.warning("%s, %s: not calibrated: %s", pipeline.name, spec.name, error)
        return _without(pipeline, spec, error.problem)
    return _measured(pipeline, spec, history, fit, issued, outputs)


def calibration_cutoffs(pipeline: Pipeline, history: Panel, quarter: Quarter) -> IntArray:
    """Grid indices of the cutoffs that a twin forecasts from, ascending; may be none."""
    grid = pipeline.grid
    begins = [grid.first_from(pd.Timestamp(q.start)) for q in (quarter.shift(-1), quarter)]
    size = max(2 * pipeline.horizon, begins[1] - begins[0])
    first, last = int(history.first.min()), int(history.last_observed.max())
    cutoffs = cutoffs_before(last, pipeline.horizon, pipeline.step, size)
    cutoffs = cutoffs[cutoffs >= first + (last - first) // 2]
    most = max(_MOST_FORECASTS // (history.n_series * pipeline.horizon), 1)
    return cutoffs[-most:]


def _issued(
    pipeline: Pipeline,
    history: Panel,
    fit: Panel,
    quarter: Quarter,
    cutoffs: IntArray,
) -> Issued:
    """The pairs that are forecast: of series that the twin has seen."""
    last = int(history.last_observed.max())
    plan = SlicePlan(quarter, pipeline.horizon, int(cutoffs[0]) + 1, last, cutoffs)
    issued = history.issued(plan, pipeline)
    known = np.isin(np.asarray(history.unique_ids, dtype=object), fit.unique_ids)[issued.series]
    return issued[known]


def _measured(
    pipeline: Pipeline,
    spec: ModelSpec,
    history: Panel,
    fit: Panel,
    issued: Issued,
    outputs: FloatArray,
) -> Calibration:
    scales = series_scales(history, issued, pipeline.season)
    typical = float(np.nanmedian(scales)) if np.isfinite(scales).any() else 1.0
    scales = np.where(np.isfinite(scales), scales, typical)
    actual = actual_values(history, issued, pipeline.horizon)
    around_point = not gives_quantiles(spec)
    widths = conformal_widths(
        outputs, actual, scales, pipeline.quantiles, pipeline.levels, around_point=around_point
    )
    is_conformal = has_conformal_intervals(pipeline, spec)
    radii = widths.radii if is_conformal else {}
    if is_conformal:
        outputs = widened(outputs, radii, scales, pipeline.quantiles, around_point=around_point)
    error = mean_score(
        pipeline,
        pipeline.champion_metric,
        history,
        issued,
        outputs,
        seasonal_scales(fit, pipeline.season),
    )
    ends = pipeline.grid.timestamps(np.array([issued.cutoff.min(), issued.cutoff.max()]))
    return Calibration(
        radii=radii,
        around_point=around_point,
        scores=widths.counts,
        pooled=widths.pooled,
        typical_scale=typical,
        error=abs(error) if np.isfinite(error) else None,
        cutoffs=tuple(at.isoformat() for at in ends),
        note="" if any(widths.counts) else "nothing was observed in the window",
        twin=_thinned(outputs, actual, scales) if keeps_twin(pipeline, spec) else None,
    )


def _thinned(outputs: FloatArray, actual: FloatArray, scales: FloatArray) -> TwinForecasts:
    """As many pairs as are worth keeping, evenly from all; the same of all members."""
    count = min(len(outputs), max(_MOST_KEPT // outputs[0].size, 1))
    chosen = np.linspace(0, len(outputs) - 1, count).astype(np.int64)
    return TwinForecasts(outputs[chosen], actual[chosen], scales[chosen])


def _without(pipeline: Pipeline, spec: ModelSpec, note: str) -> Calibration:
    none, zeros = (None,) * pipeline.horizon, (0,) * pipeline.horizon
    levels = pipeline.levels if has_conformal_intervals(pipeline, spec) else ()
    return Calibration(
        dict.fromkeys(levels, none), not gives_quantiles(spec), zeros, zeros, 1.0, note=note
    )
