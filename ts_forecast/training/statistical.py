"""Statistical baselines: statsforecast models, fitted per series or estimated at each cutoff.

A model with ``forward`` is fitted once on what the quarter's model may see, and then moved forward to
each cutoff with its parameters fixed. The others have nothing to fit: they are estimated from the
history at each cutoff, which is what a naive forecast is. The naive ones among them are computed for
many cutoffs at once by ``predictions.naive``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.training.calibration import gives_quantiles

FloatArray = npt.NDArray[np.float64]


def build_statistical(pipeline: Pipeline, spec: ModelSpec) -> Any:
    """A fresh model object of one series.

    ``season_length`` is the pipeline's season where the file does not say.

    Raises:
        TrainingError: the library refuses the parameters.
    """
    import statsforecast.models as library

    arguments = dict(spec.parameters)
    if "season_length" in spec.kind.parameters:
        arguments.setdefault("season_length", pipeline.season)
    try:
        return getattr(library, spec.model)(**arguments)
    except Exception as error:  # noqa: BLE001 — the library's constructors raise all kinds
        raise TrainingError(
            f"Pipeline {pipeline.name}, model {spec.name}: {spec.model} refuses its parameters: "
            f"{' '.join(str(error).split())}.",
            remedy="Correct `parameters` of the model in the pipeline file.",
        ) from error


def is_fitted_once(model: Any) -> bool:
    """Whether the model keeps its parameters while it moves forward."""
    return hasattr(model, "forward") and type(model).__name__ not in _FORWARD_FORGETS


def fit_series(
    pipeline: Pipeline, spec: ModelSpec, histories: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """A fitted object a series; empty for models that have nothing to fit.

    Series with fewer observations than ``pipeline.needed_history`` are left out: none of their cutoffs
    is issued yet, and an optimizer may fail on a handful of values. They are fitted at the first
    cutoff from which they are forecast.

    Raises:
        TrainingError: a series cannot be fitted; names it.
    """
    if not is_fitted_once(build_statistical(pipeline, spec)):
        return {}
    fitted = {}
    for unique_id, y in histories.items():
        if len(y) < pipeline.needed_history:
            continue
        try:
            with _numerical_noise_ignored():
                fitted[unique_id] = build_statistical(pipeline, spec).fit(y)
        except Exception as error:  # noqa: BLE001 — numerical routines raise all kinds
            raise TrainingError(
                f"Pipeline {pipeline.name}, model {spec.name}: series {unique_id!r} with {len(y)} "
                f"observations cannot be fitted: {' '.join(str(error).split())}.",
                remedy="Raise `min_history`, or choose a simpler model.",
            ) from error
    return fitted


def forecast_series(
    pipeline: Pipeline, spec: ModelSpec, model: Any, fitted: Any | None, y: FloatArray
) -> FloatArray:
    """Forecast from the end of a history, ``[horizon, n_outputs]``.

    Outputs are the pipeline's quantiles in ascending order, or the mean alone. Intervals are the
    library's; a model that has none gives NaN around its mean, for ``training.conformal`` to fill.
    """
    horizon, quantiles = pipeline.horizon, pipeline.quantiles
    levels = sorted(pipeline.levels)
    arguments: dict[str, Any] = {"h": horizon}
    if levels and gives_quantiles(spec):
        arguments["level"] = levels
    with _numerical_noise_ignored():
        if fitted is not None:
            result = fitted.forward(y=y, **arguments)
        else:
            result = model.forecast(y=y, **arguments)
    mean = np.asarray(result["mean"], dtype=np.float64)
    if not quantiles:
        return mean[:, None]
    outputs = np.full((horizon, len(quantiles)), np.nan)
    for place, quantile in enumerate(quantiles):
        level = round(abs(quantile - 0.5) * 200)
        if level == 0:
            outputs[:, place] = mean
        elif f"lo-{level}" in result:
            outputs[:, place] = result[f"{'lo' if quantile < 0.5 else 'hi'}-{level}"]
    return outputs


@contextmanager
def _numerical_noise_ignored() -> Iterator[None]:
    """Model selection tries candidates that divide by zero and discards them; results are checked."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


# Their ``forward`` estimates anew: nothing of a fit is kept.
_FORWARD_FORGETS = {
    "ConformalSeasonalPool",
    "ConstantModel",
    "Naive",
    "SeasonalNaive",
    "ZeroModel",
}
