"""Forecasting from every (series, cutoff) pair of a slice in one pass.

Each pair becomes a short series of its own: the window that ends at its cutoff. One call of the library
then forecasts them all, and equals, to rounding, what a ``predict()`` from each cutoff gives. Nothing
after a cutoff enters its window but columns that are known ahead.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.calendar import calendar_values
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import PredictionError
from ts_forecast.pipeline import Pipeline
from ts_forecast.predictions.naive import can_vectorize, naive_forecasts, shortest_history
from ts_forecast.training.boosted import forecast_boosted
from ts_forecast.training.calibration import Calibration, gives_quantiles
from ts_forecast.training.conformal import series_scales, widened
from ts_forecast.training.dense import forecast_dense
from ts_forecast.training.linear import forecast_linear
from ts_forecast.training.neural import (
    as_dataset,
    model_columns,
    quiet_libraries,
    static_values,
    window_length,
)
from ts_forecast.training.statistical import (
    build_statistical,
    fit_series,
    forecast_series,
    is_fitted_once,
)
from ts_forecast.training.trainer import FittedModel

FloatArray = npt.NDArray[np.float64]

# Windows of one chunk, as float32: what a forecast of any size may take of the memory.
_CHUNK_BYTES = 256 * 2**20
_BATCH = 1024


def forecast_pairs(
    fitted: FittedModel, pipeline: Pipeline, panel: Panel, issued: Issued
) -> FloatArray:
    """Forecasts of all pairs, ``[len(issued), horizon, n_outputs]``.

    Outputs are the pipeline's quantiles, ascending and never crossing, or the point forecast alone.
    Bounds are the model's own or, of a calibrated one, those of its calibration; NaN where there are
    neither. The median never is.

    Raises:
        PredictionError: a forecast is not finite; names model, series and cutoff.
    """
    observed, transform = panel, fitted.transform
    if transform is not None:
        panel = transform.apply(observed, pipeline)
    if fitted.spec.model == "LightGBM":
        outputs = forecast_boosted(pipeline, fitted.spec, fitted.model, panel, issued)
    elif fitted.spec.model == "DNN":
        outputs = forecast_dense(pipeline, fitted.spec, fitted.model, panel, issued)
    elif fitted.spec.model == "LEAR":
        outputs = forecast_linear(pipeline, fitted.spec, fitted.series, panel, issued)
    elif not fitted.spec.kind.is_neural:
        outputs = _statistical(fitted, pipeline, panel, issued)
    elif fitted.spec.kind.multivariate:
        outputs = _multivariate(fitted, pipeline, panel, issued)
    else:
        outputs = _univariate(fitted, pipeline, panel, issued)
    if transform is not None:
        outputs = transform.undo(outputs, observed, pipeline, issued.series)
    _refuse_infinite(fitted, pipeline, panel, issued, outputs)
    # A model without bounds has NaN around its median, which sorting would move.
    is_whole = np.isfinite(outputs).all(axis=2, keepdims=True)
    outputs = np.where(is_whole, np.sort(outputs, axis=2), outputs)
    if fitted.calibration is None:
        return outputs
    # Widths are in the target's own units.
    return with_calibration(
        fitted.calibration, pipeline, fitted.spec.name, observed, issued, outputs
    )


def with_calibration(
    calibration: Calibration,
    pipeline: Pipeline,
    name: str,
    panel: Panel,
    issued: Issued,
    outputs: FloatArray,
) -> FloatArray:
    """Outputs with conformal bounds, if the calibration has widths.

    Args:
        name: of the model, for the error.

    Raises:
        PredictionError: the calibration is of other levels or another horizon than the pipeline file's.
    """
    if not calibration.radii:
        return outputs
    if (
        set(calibration.radii) != set(pipeline.levels)
        or len(calibration.scores) != pipeline.horizon
    ):
        raise PredictionError(
            f"Pipeline {pipeline.name}, model {name}: its intervals were calibrated for "
            f"{len(calibration.scores)} steps and the levels {sorted(calibration.radii)}.",
            remedy="Materialize trained_models again: the pipeline file has changed.",
        )
    scales = series_scales(panel, issued, pipeline.season)
    return widened(
        outputs,
        calibration.radii,
        np.where(np.isfinite(scales), scales, calibration.typical_scale),
        pipeline.quantiles,
        around_point=calibration.around_point,
    )


def _univariate(
    fitted: FittedModel, pipeline: Pipeline, panel: Panel, issued: Issued
) -> FloatArray:
    length = window_length(fitted.model)
    names = model_columns(pipeline, fitted.spec)
    static = static_values(panel, pipeline, fitted.spec)
    reach = length + pipeline.horizon
    per_chunk = max(_BATCH, _CHUNK_BYTES // (4 * reach * (len(names) + 2)))
    parts = []
    for part in _chunks(issued, per_chunk):
        windows = _windows(panel, pipeline, part, names, length)
        dataset = as_dataset(
            windows.reshape(-1, windows.shape[2]),
            names,
            np.arange(len(part) + 1, dtype=np.int64) * reach,
            None if static is None else (static[0][part.series], static[1]),
        )
        parts.append(_predict(fitted, dataset, pipeline, len(part)))
    return np.concatenate(parts).astype(np.float64)


def _windows(
    panel: Panel, pipeline: Pipeline, part: Issued, names: list[str], length: int
) -> npt.NDArray[np.float32]:
    """``y, *names, available_mask`` of each pair's window and horizon, ``[p, length + h, C]``.

    y is 0 over the horizon, as the library has it; historic columns are too. A series that ended
    before its cutoff (multivariate models read it still) is carried forward, as within a gap: what is
    known at the cutoff does not tell one from the other.
    """
    horizon = pipeline.horizon
    values = np.zeros((len(part), length + horizon, len(names) + 2), dtype=np.float32)
    last = (panel.first + np.diff(panel.indptr) - 1)[part.series]
    lag = np.maximum(part.cutoff - last, 0)
    y, mask = panel.windows(Issued(part.series, part.cutoff - lag), length, pipeline.missing)
    if lag.any():
        carried = np.minimum(np.arange(length) + lag[:, None], length - 1)
        y, mask = (np.take_along_axis(array, carried, axis=1) for array in (y, mask))
    values[:, :length, 0] = y
    values[:, :length, -1] = mask
    values[:, length:, -1] = 1
    if not names:
        return values
    steps = part.cutoff[:, None] + np.arange(1 - length, horizon + 1)[None, :]
    rows = panel.rows_at(part.series[:, None], np.minimum(steps, last[:, None]))
    known = rows >= 0
    exogenous = panel.filled_exogenous()
    calendar = pipeline.exogenous.calendar_columns
    if calendar:
        # A calendar reaches past the last row of a series; a named column never has to.
        span = np.arange(steps.min(), steps.max() + 1)
        waves = calendar_values(panel.grid.timestamps(span), pipeline.exogenous.calendar)
    future = set(pipeline.exogenous.future)
    for place, name in enumerate(names, start=1):
        if name in calendar:
            column = waves[steps - span[0], calendar.index(name)]
            # Before a series starts there is nothing, calendar included: the library pads with 0.
            column = np.where(known, column, 0.0)
        else:
            column = np.where(known, exogenous[rows, panel.columns.index(name)], 0.0)
            if name not in future:
                column[:, length:] = 0.0
        values[:, :, place] = column
    return values


def _predict(fitted: FittedModel, dataset: object, pipeline: Pipeline, groups: int) -> FloatArray:
    """The library's forecast of every group of a dataset whose last rows are the horizon.

    A point forecast stands among NaN where quantiles are wanted.
    """
    model, horizon = fitted.model, pipeline.horizon
    quiet_libraries()
    model.set_test_size(horizon)
    # A multivariate model has to see all series in one batch.
    model.valid_batch_size = max(_BATCH, groups) if model.MULTIVARIATE else _BATCH
    forecast: FloatArray = model.predict(dataset)
    forecast = forecast.reshape(groups, horizon, -1)
    if not pipeline.quantiles or gives_quantiles(fitted.spec):
        return forecast
    is_median = np.array(pipeline.quantiles) == 0.5
    return np.where(is_median, forecast, np.nan)


def _multivariate(
    fitted: FittedModel, pipeline: Pipeline, panel: Panel, issued: Issued
) -> FloatArray:
    """One forecast a cutoff for all series that the model was fitted on, then the issued pairs."""
    place = {unique_id: i for i, unique_id in enumerate(fitted.unique_ids)}
    strangers = [u for u in panel.unique_ids if u not in place]
    issued_ids = {panel.unique_ids[i] for i in np.unique(issued.series)}
    if issued_ids & set(strangers):
        raise PredictionError(
            f"Pipeline {pipeline.name}, model {fitted.spec.name}: series {strangers[0]!r} was not there "
            f"when the multivariate {fitted.spec.model} was fitted.",
            remedy="It is forecast from the next quarter on; leave the model out until then.",
        )
    series_at = {unique_id: i for i, unique_id in enumerate(panel.unique_ids)}
    order = np.array([series_at.get(unique_id, -1) for unique_id in fitted.unique_ids])
    length = window_length(fitted.model)
    names = model_columns(pipeline, fitted.spec)
    static = static_values(panel, pipeline, fitted.spec)
    known_series = np.flatnonzero(order >= 0)
    reach = length + pipeline.horizon
    outputs = np.empty((len(issued), pipeline.horizon, max(len(pipeline.quantiles), 1)))
    for cutoff in np.unique(issued.cutoff):
        values = np.zeros((len(order), reach, len(names) + 2), dtype=np.float32)
        started = known_series[panel.first[order[known_series]] <= cutoff]
        everyone = Issued(order[started], np.full(len(started), cutoff))
        values[started] = _windows(panel, pipeline, everyone, names, length)
        dataset = as_dataset(
            values.reshape(-1, values.shape[2]),
            names,
            np.arange(len(order) + 1, dtype=np.int64) * reach,
            None if static is None else (static[0][np.clip(order, 0, None)], static[1]),
        )
        forecast = _predict(fitted, dataset, pipeline, len(order))
        mine = np.flatnonzero(issued.cutoff == cutoff)
        outputs[mine] = forecast[[place[panel.unique_ids[i]] for i in issued.series[mine]]]
    return outputs


def _statistical(
    fitted: FittedModel, pipeline: Pipeline, panel: Panel, issued: Issued
) -> FloatArray:
    model = build_statistical(pipeline, fitted.spec)
    outputs = np.empty((len(issued), pipeline.horizon, max(len(pipeline.quantiles), 1)))
    if not can_vectorize(model):
        return _one_by_one(fitted, pipeline, panel, issued, np.arange(len(issued)), outputs)
    lengths = issued.cutoff - panel.first[issued.series] + 1
    # Within a gap a history ends in a carried value, which the common history does not hold.
    ends = panel.indptr[issued.series] + lengths - 1
    is_common = (lengths >= shortest_history(model)) & panel.observed[ends]
    filled = panel.filled(pipeline.missing)
    places = np.flatnonzero(is_common)
    bounds = np.flatnonzero(np.diff(issued.series[places], prepend=-1))
    for part in np.split(places, bounds[1:]) if len(places) else []:
        begin = filled.indptr[issued.series[part[0]]]
        history = filled.y[begin : begin + lengths[part].max()]
        outputs[part] = naive_forecasts(
            model, history, lengths[part], pipeline.horizon, pipeline.quantiles
        )
    return _one_by_one(fitted, pipeline, panel, issued, np.flatnonzero(~is_common), outputs)


def _one_by_one(
    fitted: FittedModel,
    pipeline: Pipeline,
    panel: Panel,
    issued: Issued,
    places: npt.NDArray[np.int64],
    outputs: FloatArray,
) -> FloatArray:
    """Fill in the forecasts of some pairs, by the library; returns ``outputs``."""
    model = build_statistical(pipeline, fitted.spec)
    keeps_parameters = is_fitted_once(model)
    late: dict[str, object] = {}
    some = issued[places]
    for place, (series, y) in zip(places, panel.histories(some, pipeline.missing), strict=True):
        unique_id = panel.unique_ids[series]
        parameters = None
        if keeps_parameters:
            parameters = fitted.series.get(unique_id) or late.get(unique_id)
            if parameters is None:
                # It began after the fit, or had too little to fit: estimated at its first cutoff.
                parameters = fit_series(pipeline, fitted.spec, {unique_id: y})[unique_id]
                late[unique_id] = parameters
        try:
            outputs[place] = forecast_series(pipeline, fitted.spec, model, parameters, y)
        except Exception as error:  # noqa: BLE001 — numerical routines raise all kinds
            at = panel.grid.timestamps(issued.cutoff[place : place + 1])[0]
            raise PredictionError(
                f"Pipeline {pipeline.name}, model {fitted.spec.name}: series {unique_id!r} cannot be "
                f"forecast from {at}: {' '.join(str(error).split())}.",
                remedy="Raise `min_history`, or choose a simpler model.",
            ) from error
    return outputs


def _chunks(issued: Issued, size: int) -> Iterator[Issued]:
    for begin in range(0, len(issued), size):
        part = slice(begin, begin + size)
        yield issued[part]


def _refuse_infinite(
    fitted: FittedModel, pipeline: Pipeline, panel: Panel, issued: Issued, outputs: FloatArray
) -> None:
    if not pipeline.quantiles or (fitted.spec.kind.is_neural and gives_quantiles(fitted.spec)):
        bad = ~np.isfinite(outputs).all(axis=(1, 2))
    else:
        median = pipeline.quantiles.index(0.5)
        bad = ~np.isfinite(outputs[:, :, median]).all(axis=1) | np.isinf(outputs).any(axis=(1, 2))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        at = panel.grid.timestamps(issued.cutoff[first : first + 1])[0]
        raise PredictionError(
            f"Pipeline {pipeline.name}, model {fitted.spec.name}: the forecast of series "
            f"{panel.unique_ids[issued.series[first]]!r} from {at} is not finite "
            f"({int(bad.sum())} of {len(issued)} forecasts).",
            remedy="Lower learning_rate or set scaler_type, then train the model again."
            if fitted.spec.kind.is_neural
            else "Raise `min_history` to what the model needs, or choose a simpler model.",
        )
