"""Gradient-boosted trees (LightGBM) on lags, through mlforecast.

The series are folded before mlforecast sees them: every step of the horizon is a series of its own,
whose next value is one period away, a period being the fewest whole seasons that hold the horizon. So
one forecast is one step, no forecast is fed back as if it had been observed, and each step reads its
own date's columns (mlforecast's direct strategy reads the first step's for all of them, its issue 705).
mlforecast makes the lags and differences; the last season and what is known ahead are columns beside
them. One model over all series and steps; with ``levels``, one a quantile.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.regression_parameters import LightGBMParameters, own_parameters
from ts_forecast.training.lagged_inputs import (
    calendar_ahead,
    exogenous_ahead,
    exogenous_past,
    forecast_anew,
    last_row,
    past_blocks,
    training_pairs,
)

FloatArray = npt.NDArray[np.float64]

_LIBRARY_DEFAULTS: Mapping[str, Any] = {
    "verbosity": -1,
    "n_jobs": 1,
    # Sums in one order, whatever the machine's load.
    "deterministic": True,
    "force_col_wise": True,
}


@dataclass(frozen=True)
class Boosted:
    """Fitted trees.

    Attributes:
        forecaster: an ``MLForecast`` of the folded series.
        until: grid index of the last row of the panel that they were fitted on.
    """

    forecaster: Any
    until: int


def load_openmp() -> None:
    """Have an OpenMP runtime loaded before LightGBM, whose wheel has none; torch's is at hand."""
    import torch  # noqa: F401


def fit_boosted(pipeline: Pipeline, spec: ModelSpec, panel: Panel) -> Boosted:
    """Trees over all series of a filled panel.

    Raises:
        TrainingError: the library refuses the parameters or the data.
    """
    load_openmp()
    from mlforecast import MLForecast
    from mlforecast.target_transforms import Differences

    own = own_parameters(LightGBMParameters, spec.parameters)
    where = f"Pipeline {pipeline.name}, model {spec.name}"
    frame = _training_frame(pipeline, spec, panel)
    try:
        model = MLForecast(
            models=_regressors(pipeline, spec),
            freq=1,
            lags=list(own.lags),
            target_transforms=[Differences(list(own.differences))] if own.differences else None,
            num_threads=1,
        )
        model.fit(frame, static_features=[], dropna=bool(own.differences))
    except Exception as error:  # noqa: BLE001 — the libraries raise all kinds
        raise TrainingError(
            f"{where}: the fit failed on {panel.n_series} series with {panel.n_rows} rows: "
            f"{' '.join(str(error).split())}.",
            remedy="Correct `parameters` of the model in the pipeline file.",
        ) from error
    return Boosted(model, last_row(panel))


def forecast_boosted(
    pipeline: Pipeline, spec: ModelSpec, fitted: Boosted, panel: Panel, issued: Issued
) -> FloatArray:
    """Forecasts of all pairs, ``[pairs, horizon, outputs]``.

    With ``refit`` the trees are grown anew on the way, from what is known then.
    """

    def fit(known: Panel) -> Boosted:
        return fit_boosted(pipeline, spec, known)

    def forecast(trees: Boosted, part: Issued) -> FloatArray:
        history, ahead = _forecasting_frames(pipeline, spec, panel, part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = trees.forecaster.predict(1, new_df=history, X_df=ahead)
        values = found.drop(columns=["unique_id", "ds"]).to_numpy(dtype=np.float64)
        return values.reshape(len(part), pipeline.horizon, -1)

    refit = own_parameters(LightGBMParameters, spec.parameters).refit
    return forecast_anew(pipeline, panel, issued, refit, fitted, fitted.until, fit, forecast)


def period(pipeline: Pipeline) -> int:
    """Steps from a value of a folded series to the next: whole seasons that hold the horizon."""
    return -(-pipeline.horizon // pipeline.season) * pipeline.season


def _regressors(pipeline: Pipeline, spec: ModelSpec) -> dict[str, Any]:
    from lightgbm import LGBMRegressor

    given = {k: v for k, v in spec.parameters.items() if k not in LightGBMParameters.model_fields}
    arguments = {**_LIBRARY_DEFAULTS, "random_state": pipeline.seed, **given}
    if not pipeline.quantiles:
        return {"forecast": LGBMRegressor(**{"objective": "regression_l1", **arguments})}
    return {
        f"q{place:03d}": LGBMRegressor(**{**arguments, "objective": "quantile", "alpha": quantile})
        for place, quantile in enumerate(pipeline.quantiles)
    }


def _training_frame(pipeline: Pipeline, spec: ModelSpec, panel: Panel) -> pd.DataFrame:
    """The folded series and their columns: a row a (series, phase, step) and period."""
    length = period(pipeline)
    wanted = training_pairs(panel, pipeline, pipeline.season)
    phases = np.unique(wanted.cutoff % length)
    series, cutoffs = [], []
    ends = panel.first + np.diff(panel.indptr) - 1
    for place, (first, end) in enumerate(zip(panel.first, ends, strict=True)):
        own = np.arange(first + pipeline.season - 1, end - pipeline.horizon + 1, dtype=np.int64)
        own = own[np.isin(own % length, phases)]
        series.append(np.full(len(own), place))
        cutoffs.append(own)
    pairs = Issued(np.concatenate(series), np.concatenate(cutoffs))
    steps = np.arange(pipeline.horizon)
    targets = panel.rows_at(pairs.series[:, None], pairs.cutoff[:, None] + 1 + steps)
    fold = (pairs.series * length + pairs.cutoff % length)[:, None] * pipeline.horizon + steps
    frame = pd.DataFrame(
        {
            "unique_id": fold.reshape(-1),
            "ds": np.repeat(pairs.cutoff // length, pipeline.horizon),
            "y": panel.y[targets].reshape(-1),
        }
    )
    return pd.concat([frame, _columns(pipeline, spec, panel, pairs)], axis=1)


def _forecasting_frames(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, pairs: Issued
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The folded past of every (pair, step), and the columns of what comes next."""
    own = own_parameters(LightGBMParameters, spec.parameters)
    length, horizon = period(pipeline), pipeline.horizon
    depth = max(own.lags) + sum(own.differences) + 1
    y, mask = panel.windows(pairs, depth * length, pipeline.missing)
    past = y.reshape(len(pairs), depth, length)[:, :, :horizon]
    known = mask.reshape(len(pairs), depth, length)[:, :, :horizon] > 0
    # A series of which nothing is known at a step has no lag there; mlforecast wants a value.
    known[:, -1] = True
    pair, step, at = np.nonzero(np.moveaxis(known, 1, 2))
    ids = np.arange(len(pairs) * horizon)
    columns = _columns(pipeline, spec, panel, pairs)
    ahead = pd.concat(
        [pd.DataFrame({"unique_id": ids, "ds": np.full(len(ids), depth)}), columns], axis=1
    )
    history = pd.DataFrame(
        {"unique_id": pair * horizon + step, "ds": at, "y": past[pair, at, step]}
    )
    # Their past is not read; mlforecast wants to see the columns.
    empty = pd.DataFrame(0.0, index=history.index, columns=columns.columns)
    return pd.concat([history, empty], axis=1), ahead


def _columns(pipeline: Pipeline, spec: ModelSpec, panel: Panel, pairs: Issued) -> pd.DataFrame:
    """What is known at a cutoff beside the lags, a row a (pair, step)."""
    count, horizon, season = len(pairs), pipeline.horizon, pipeline.season
    own = own_parameters(LightGBMParameters, spec.parameters)
    last = past_blocks(panel, pipeline, pairs, [1])[:, 0]
    steps = np.arange(horizon)
    found: dict[str, FloatArray] = {"step": np.tile(steps.astype(float), count)}
    common = {f"last_{i}": last[:, i] for i in range(season)}
    common |= {
        "last_mean": last.mean(axis=1),
        "last_min": last.min(axis=1),
        "last_max": last.max(axis=1),
    }
    ahead = exogenous_ahead(panel, pipeline, spec, pairs)
    past = exogenous_past(panel, pipeline, spec, pairs, own.exogenous_lags or [1])
    for place in range(ahead.shape[1]):
        found[f"ahead_{place}"] = ahead[:, place].reshape(-1)
        common[f"ahead_{place}_mean"] = ahead[:, place].mean(axis=1)
        common[f"ahead_{place}_max"] = ahead[:, place].max(axis=1)
    for place in range(past.shape[1]):
        for at, lag in enumerate(own.exogenous_lags):
            found[f"past_{place}_{lag}"] = past[:, place, at][:, steps % season].reshape(-1)
            common[f"past_{place}_{lag}_mean"] = past[:, place, at].mean(axis=1)
    indicators = calendar_ahead(pipeline, spec, pairs)
    for place in range(indicators.shape[2]):
        found[f"calendar_{place}"] = indicators[:, :, place].reshape(-1)
    found |= {name: np.repeat(values, horizon) for name, values in common.items()}
    return pd.DataFrame(found)
