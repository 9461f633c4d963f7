"""What each forecasting model of neuralforecast and statsforecast is called, takes and can do.

A snapshot of the two libraries' signatures in ``model_catalogue.json``, so that a pipeline file is
judged without importing torch. ``python -m ts_forecast.model_catalogue`` rewrites the snapshot; a
test compares it with the installed libraries. Building and fitting models lives in ``training``.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

_SNAPSHOT = Path(__file__).with_suffix(".json")
# HINT wraps another model; these baselines need arguments that a YAML file cannot hold.
_UNUSABLE = {"HINT", "SklearnModel", "NaNModel"}
# Set by the pipeline or by the trainer, never by a model's parameters.
_RESERVED = {
    "self", "h", "loss", "valid_loss", "random_seed", "alias", "n_series",
    "futr_exog_list", "hist_exog_list", "stat_exog_list", "exclude_insample_y_", "trainer_kwargs",
    "logger", "enable_progress_bar", "enable_checkpointing", "prediction_intervals",
}  # fmt: skip


@dataclass(frozen=True)
class ModelKind:
    """One model class and its abilities.

    Attributes:
        name: the class name, as in a pipeline file.
        framework: the library that it comes from; a value of ``models.framework``.
        parameters: the keyword arguments that a pipeline file may set.
        future, historic, static: which exogenous columns it can take.
        multivariate: one forecast uses all series at once.
    """

    name: str
    framework: Literal["neuralforecast", "statsforecast"]
    parameters: tuple[str, ...]
    future: bool
    historic: bool
    static: bool
    multivariate: bool

    @property
    def is_neural(self) -> bool:
        """Fitted by gradient descent (neuralforecast) rather than per series (statsforecast)."""
        return self.framework == "neuralforecast"


@cache
def catalogue() -> dict[str, ModelKind]:
    """Every model that a pipeline file can name, by class name."""
    rows: dict[str, dict[str, Any]] = json.loads(_SNAPSHOT.read_text(encoding="utf-8"))
    return {
        name: ModelKind(name=name, **{**row, "parameters": tuple(row["parameters"])})
        for name, row in rows.items()
    }


def inspect_libraries() -> dict[str, dict[str, Any]]:
    """The snapshot's content, read from the installed libraries. Imports torch: seconds."""
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
    return dict(sorted(found.items()))


def _parameters(kind: type) -> list[str]:
    return sorted(
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if name not in _RESERVED and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )


if __name__ == "__main__":
    _SNAPSHOT.write_text(json.dumps(inspect_libraries(), indent=1) + "\n", encoding="utf-8")
