"""Which models are calibrated, and what a calibration is: stored in the model's folder.

It says how far a model's forecasts are off: for conformal intervals, and for the weights of ensembles. It
is made when the model is trained, by forecasts of a twin that was fitted on less, so that it rests on what
the model may see and on nothing else: not on the order in which quarters were materialized, and not on
what is known later. Making it is ``evaluation.calibration``, which lies above, for the twin forecasts as
a quarter is forecast; ``train_quarter`` is handed it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.quarters import Quarter

# Raise it when the same forecasts and observations would give another calibration.
CALIBRATION_CODE_VERSION = 1

FloatArray = npt.NDArray[np.float64]

_FILE = "calibration.json"
_TWIN = "twin.npz"

# Their constructors refuse a loss over several quantiles, each with words of its own.
_POINT_NEURAL = {"DeepAR", "DeepNPTS", "TimeLLM"}

# Of statsforecast (LEAR is ours): these raise when asked for a level without ``prediction_intervals``,
# which costs several fits a cutoff; ConformalSeasonalPool draws its intervals with a generator that
# cannot be seeded.
_POINT_STATISTICAL = {
    "ADIDA",
    "AutoMFLES",
    "ConformalSeasonalPool",
    "CrostonClassic",
    "CrostonOptimized",
    "CrostonSBA",
    "IMAPA",
    "LEAR",
    "MFLES",
    "SeasonalExponentialSmoothing",
    "SeasonalExponentialSmoothingOptimized",
    "SeasonalWindowAverage",
    "SimpleExponentialSmoothing",
    "SimpleExponentialSmoothingOptimized",
    "TSB",
    "WindowAverage",
}


@dataclass(frozen=True)
class TwinForecasts:
    """Forecasts of a window that was held out; those of all members of an ensemble are of the same pairs.

    Attributes:
        outputs: ``[pairs, horizon, quantiles]``, as the model gives them, conformal bounds included.
        actual: ``[pairs, horizon]``, NaN where nothing was observed.
        scales: ``[pairs]``, of the pairs' series.
    """

    outputs: FloatArray
    actual: FloatArray
    scales: FloatArray


@dataclass(frozen=True)
class Calibration:
    """What a model's forecasts of a window that was held out were like.

    Attributes:
        radii: by level in percent, for each step ahead: by how many of a series' scales the model's
            interval is widened (narrowed, if negative); None where there are too few forecasts for the
            level. The interval of a model without quantiles is its point. Empty where intervals stay
            the model's own.
        around_point: the model's own intervals are its point; else its quantiles.
        scores: forecasts with an observation, for each step ahead.
        pooled: for each step ahead, over how many steps to either side scores were put together.
        typical_scale: stands in for that of a series which has not varied yet.
        error: the pipeline's champion metric, its mean over series, a bias without its sign; None
            where it is not defined.
        cutoffs: first and last from which was forecast, in ISO 8601; empty where there was none.
        note: why there are no scores; empty if there are.
        twin: the forecasts, where an ensemble is calibrated on them.
    """

    radii: dict[int, tuple[float | None, ...]]
    around_point: bool
    scores: tuple[int, ...]
    pooled: tuple[int, ...]
    typical_scale: float
    error: float | None = None
    cutoffs: tuple[str, ...] = ()
    note: str = ""
    twin: TwinForecasts | None = field(default=None, repr=False, compare=False)

    def save(self, folder: Path) -> None:
        """Write it into a model's folder."""
        text = json.dumps(asdict(replace(self, twin=None)), indent=1, sort_keys=True)
        (folder / _FILE).write_text(text, encoding="utf-8")
        if self.twin is not None:
            np.savez(folder / _TWIN, **vars(self.twin))

    @property
    def summary(self) -> dict[str, Any]:
        """What the model's row keeps of it."""
        return {
            "error": self.error,
            "scores": sum(self.scores),
            "pooled_steps": max(self.pooled, default=0),
            "cutoffs": list(self.cutoffs),
            **({"note": self.note} if self.note else {}),
        }


def load_calibration(folder: Path) -> Calibration | None:
    """The calibration in a model's folder, whose hash the caller has verified; None if it has none."""
    path = folder / _FILE
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    radii = {int(level): tuple(steps) for level, steps in stored["radii"].items()}
    return Calibration(
        radii=radii,
        around_point=stored["around_point"],
        scores=tuple(stored["scores"]),
        pooled=tuple(stored["pooled"]),
        typical_scale=stored["typical_scale"],
        error=stored["error"],
        cutoffs=tuple(stored["cutoffs"]),
        note=stored["note"],
    )


def load_twin(folder: Path) -> TwinForecasts | None:
    """The twin's forecasts in a model's folder, whose hash the caller has verified; None if it has none."""
    path = folder / _TWIN
    if not path.exists():
        return None
    with np.load(path) as stored:
        return TwinForecasts(stored["outputs"], stored["actual"], stored["scales"])


def gives_quantiles(spec: ModelSpec) -> bool:
    """Whether the model has quantiles of its own: by its loss, or from the library."""
    name = spec.kind.searches or spec.model
    # A recurrent forecast feeds one value back: quantiles are averaged away.
    if spec.parameters.get("recurrent"):
        return False
    return name not in (_POINT_NEURAL if spec.kind.is_neural else _POINT_STATISTICAL)


def has_conformal_intervals(pipeline: Pipeline, spec: ModelSpec) -> bool:
    """Whether the pipeline file asks for conformal intervals of a model."""
    how = spec.intervals or pipeline.intervals
    if not pipeline.levels or how == "model":
        return False
    # Quantiles of an ensemble are its members'.
    return how == "conformal" or (spec.ensemble is None and not gives_quantiles(spec))


def keeps_twin(pipeline: Pipeline, spec: ModelSpec) -> bool:
    """Whether an ensemble is calibrated on what the model's twin forecasts."""
    return any(
        spec.name in one.of for one in pipeline.models if has_conformal_intervals(pipeline, one)
    )


def is_calibrated(pipeline: Pipeline, spec: ModelSpec) -> bool:
    """Whether a model that is fitted gets a twin: for intervals, or to be weighed by its error."""
    weighed = {
        name for one in pipeline.models if one.ensemble == "inverse_error" for name in one.of
    }
    return (
        has_conformal_intervals(pipeline, spec)
        or keeps_twin(pipeline, spec)
        or spec.name in weighed
    )


def calibration_payload(
    pipeline: Pipeline, spec: ModelSpec, history: Panel
) -> dict[str, object] | None:
    """What decides a calibration, beside what decides the fit; None of a model that gets none.

    Args:
        history: what the model may see, as observed. Filled, it does not tell an observation from a
            filled gap, and only the first is compared with a forecast.
    """
    if not is_calibrated(pipeline, spec):
        return None
    return {
        "code": CALIBRATION_CODE_VERSION,
        "intervals": has_conformal_intervals(pipeline, spec),
        "twin": keeps_twin(pipeline, spec),
        "metric": pipeline.champion_metric,
        "step": pipeline.step,
        "missing": pipeline.missing,
        "needed_history": pipeline.needed_history,
        "history": history.content_hash(),
    }


class Calibrate(Protocol):
    """Forecasts a window that was held out, and measures the errors."""

    def __call__(
        self, pipeline: Pipeline, spec: ModelSpec, history: Panel, quarter: Quarter
    ) -> Calibration:
        """See ``evaluation.calibration.calibrate``."""


def calibration_of(
    calibrate: Calibrate | None,
    pipeline: Pipeline,
    spec: ModelSpec,
    history: Panel,
    quarter: Quarter,
) -> Calibration | None:
    """The calibration of a model that is trained; None of one that gets none.

    Raises:
        TrainingError: it is to be calibrated, and nobody is there to do it.
    """
    if not is_calibrated(pipeline, spec):
        return None
    if calibrate is None:
        raise TrainingError(
            f"Model {spec.name}: nobody is there to calibrate {spec.model}.",
            remedy="Pass calibrate=ts_forecast.evaluation.calibration.calibrate.",
        )
    return calibrate(pipeline, spec, history, quarter)
