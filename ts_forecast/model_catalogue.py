"""What each forecasting model of neuralforecast and statsforecast is called, takes and can do.

A snapshot of the two libraries' signatures in ``model_catalogue.json``, so that a pipeline file is
judged without importing torch. ``python -m ts_forecast.model_catalogue`` rewrites the snapshot; a
test compares it with the installed libraries. What the library's Auto* models search by default is in
it too, in the words of ``search_space``. Building and fitting models lives in ``training``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ts_forecast.regression_parameters import REGRESSIONS, regression_problem

_SNAPSHOT = Path(__file__).with_suffix(".json")
# HINT wraps another model; these baselines need arguments that a YAML file cannot hold.
_UNUSABLE = {"HINT", "SklearnModel", "NaNModel"}
# Set by the pipeline or by the trainer, never by a model's parameters.
_RESERVED = {
    "self", "h", "loss", "valid_loss", "random_seed", "alias", "n_series",
    "futr_exog_list", "hist_exog_list", "stat_exog_list", "exclude_insample_y_", "trainer_kwargs",
    "logger", "enable_progress_bar", "enable_checkpointing", "prediction_intervals",
}  # fmt: skip
# In the library's default spaces, and not searched: the first is a multiple of the input's length that
# recurrent models use at prediction, always "as in training".
_UNSEARCHED = _RESERVED | {"inference_input_size_multiplier"}
# What the library makes of an input_size of -1, in horizons.
_UNLIMITED = 3
# Regressions on lags, by what fits them.
_LIBRARIES = {
    "DNN": ("torch", "numpy"),
    "LEAR": ("scikit-learn", "numpy"),
    "LightGBM": ("lightgbm", "mlforecast"),
}
# Set by the trainer, or of classification.
_NOT_OF_LIGHTGBM = {"class_weight", "importance_type", "n_jobs", "objective", "random_state"}


@dataclass(frozen=True)
class ModelKind:
    """One model class and its abilities.

    Attributes:
        name: the class name, as in a pipeline file.
        framework: the library that it comes from, ``ts_forecast`` for ensembles, ``sklearn`` for what is
            fitted with its interface, ``pytorch`` for nets of ours; a value of ``models.framework``.
        parameters: the keyword arguments that a pipeline file may set.
        future, historic, static: which exogenous columns it can take.
        multivariate: one forecast uses all series at once.
        searches: of neuralforecast's Auto* models, the class whose parameters are searched; parameters
            and abilities are that class's.
        default_space: what the library searches by default, as ``search_space.Space`` has it.
    """

    name: str
    framework: Literal["neuralforecast", "statsforecast", "sklearn", "pytorch", "ts_forecast"]
    parameters: tuple[str, ...]
    future: bool
    historic: bool
    static: bool
    multivariate: bool
    searches: str | None = None
    default_space: dict[str, Any] | None = None

    @property
    def is_neural(self) -> bool:
        """Fitted by gradient descent, with neuralforecast."""
        return self.framework == "neuralforecast"

    @property
    def is_regression(self) -> bool:
        """Fitted on lags of the target and of columns (``training.lagged_inputs``)."""
        return self.name in REGRESSIONS

    @property
    def reads_columns(self) -> bool:
        """Whether it takes exogenous columns unasked: models of statsforecast and ensembles do not."""
        return self.is_neural or self.is_regression

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose versions decide a fit, the one that fits first."""
        if self.is_regression:
            return _LIBRARIES[self.name]
        return {
            "neuralforecast": ("neuralforecast", "torch"),
            "statsforecast": ("statsforecast", "numpy"),
            "ts_forecast": (),
        }[self.framework]

    def problem(self, parameters: Mapping[str, Any]) -> str:
        """What is wrong with the parameters of a regression; empty if nothing is."""
        return regression_problem(self.name, parameters) if self.is_regression else ""


ENSEMBLE = ModelKind("Ensemble", "ts_forecast", (), False, False, False, False)
"""Forecasts of other models put together; of no library, and so in no catalogue."""


@cache
def catalogue() -> dict[str, ModelKind]:
    """Every model that a pipeline file can name, by class name."""
    rows: dict[str, dict[str, Any]] = json.loads(_SNAPSHOT.read_text(encoding="utf-8"))
    kinds = {}
    for name, row in rows.items():
        whole = {**rows[row["searches"]], **row} if "searches" in row else row
        kinds[name] = ModelKind(name=name, **{**whole, "parameters": tuple(whole["parameters"])})
    return kinds


def inspect_libraries() -> dict[str, dict[str, Any]]:
    """The snapshot's content, read from the installed libraries. Imports torch: seconds."""
    import neuralforecast.auto as searching
    import neuralforecast.models as neural
    import statsforecast.models as statistical

    found: dict[str, dict[str, Any]] = {}
    for name in neural.__all__:
        if name in _UNUSABLE:
            continue
        kind = getattr(neural, name)
        found[name] = {
            "framework": "neuralforecast",
            "parameters": _parameters(kind),
            "future": bool(kind.EXOGENOUS_FUTR),
            "historic": bool(kind.EXOGENOUS_HIST),
            "static": bool(kind.EXOGENOUS_STAT),
            "multivariate": bool(kind.MULTIVARIATE),
        }
    for name in statistical.__all__:
        if name in _UNUSABLE:
            continue
        found[name] = {
            "framework": "statsforecast",
            "parameters": _parameters(getattr(statistical, name)),
            # Exogenous regressors of per-series models are not offered: they need one fit a cutoff.
            "future": False,
            "historic": False,
            "static": False,
            "multivariate": False,
        }
    for name in searching.__all__:
        plain = name.removeprefix("Auto")
        if name == plain or plain in _UNUSABLE:
            continue
        space = _space(getattr(searching, name).default_config)
        found[name] = {"searches": plain, "default_space": space}
    found |= _regressions()
    return dict(sorted(found.items()))


def _regressions() -> dict[str, dict[str, Any]]:
    from lightgbm import LGBMRegressor

    own = {name: set(kind.model_fields) for name, kind in REGRESSIONS.items()}
    # The last are those that LightGBM takes by their own names, beside its constructor's.
    own["LightGBM"] |= set(_parameters(LGBMRegressor)) - _NOT_OF_LIGHTGBM
    own["LightGBM"] |= {
        "bagging_fraction", "bagging_freq", "feature_fraction", "lambda_l2", "linear_tree",
    }  # fmt: skip
    able = {"future": True, "historic": True, "static": False, "multivariate": False}
    framework = {name: "pytorch" if name == "DNN" else "sklearn" for name in own}
    return {
        name: {"framework": framework[name], "parameters": sorted(parameters), **able}
        for name, parameters in own.items()
    }


def _space(config: dict[str, Any]) -> dict[str, Any]:
    """One of the library's default spaces (Ray's domains) in our words."""
    space: dict[str, Any] = {}
    for name, domain in config.items():
        if name == "input_size_multiplier":
            sizes = sorted(_UNLIMITED if size == -1 else size for size in domain)
            space["input_size"] = {"values": sizes, "times": "horizon"}
        elif name not in _UNSEARCHED:
            space[name] = _domain(domain)
    return dict(sorted(space.items()))


def _domain(domain: Any) -> Any:
    from ray.tune.search.sample import Categorical, Float, Integer, Quantized

    if isinstance(domain, Categorical):
        values = list(domain.categories)
        return {"values": values} if len(values) > 1 else values[0]
    if not isinstance(domain, (Float, Integer)):
        return domain
    sampler = domain.sampler
    step = sampler.q if isinstance(sampler, Quantized) else None
    if isinstance(domain, Integer):
        # Its upper end is not of the range.
        return {"low": domain.lower, "high": domain.upper - 1, "type": "integer"}
    if step is not None and step == int(step):
        low, high = int(domain.lower), int(domain.upper)
        return {"low": low, "high": high, "step": int(step), "type": "integer"}
    log = {"log": True} if type(sampler).__name__ == "_LogUniform" else {}
    return {"low": domain.lower, "high": domain.upper, **log, "type": "float"}


def _parameters(kind: type) -> list[str]:
    return sorted(
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if name not in _RESERVED and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )


if __name__ == "__main__":
    _lines = (f"{json.dumps(key)}: {json.dumps(row)}" for key, row in inspect_libraries().items())
    _SNAPSHOT.write_text("{\n" + ",\n".join(_lines) + "\n}\n", encoding="utf-8")
