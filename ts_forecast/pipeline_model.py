"""A model of a pipeline file: its class, its parameters, what is asked of it.

What can be judged from the entry alone stands here; what needs the rest of the file is ``pipeline``, and
which classes there are ``model_catalogue``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ts_forecast.model_catalogue import ENSEMBLE, ModelKind, catalogue
from ts_forecast.pipeline_source import Strict
from ts_forecast.search_space import SearchSettings, Space, parse_space

_ALIAS = r"^[A-Za-z][A-Za-z0-9_]{0,62}$"
# Of neural models, beside those of their constructors.
OWN_PARAMETERS = ("val_size",)
Blend = Literal["mean", "median", "trimmed_mean", "inverse_error"]
_FEWEST_TRIMMED = 3
Intervals = Literal["auto", "conformal", "model"]
Transform = Literal["robust", "asinh"]


class ModelSpec(Strict):
    """One model of a pipeline."""

    model: str = Field(
        description="Class name in neuralforecast or statsforecast, e.g. NHITS; AutoNHITS searches "
        "the parameters of NHITS; or LEAR, LightGBM, DNN. An ensemble has none."
    )
    ensemble: Blend | None = Field(
        None, description="Instead of model: how the forecasts of others are put together."
    )
    of: tuple[str, ...] = Field((), description="Of an ensemble: names of models, at least two.")
    name: Annotated[str, Field(pattern=_ALIAS)] = Field(
        "",
        validate_default=False,
        description="Name in tables and assets; default: the class name.",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Of the class; those of an Auto model are not searched."
    )
    exogenous: tuple[str, ...] | None = Field(
        None, description="Which of the pipeline's exogenous columns it takes; default: all."
    )
    transform: Transform | None = Field(
        None,
        description="Of the target, undone on forecasts: robust scales it by median and spread, "
        "asinh draws its spikes in too.",
    )
    search_space: str | Space | None = Field(
        None,
        description="Of an Auto model: the name of a stored space, or the space itself; default: "
        "the library's.",
    )
    search: SearchSettings | None = Field(None, description="Of an Auto model: how it searches.")
    intervals: Intervals | None = Field(
        None, description="Where its intervals come from; default: as the pipeline says."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"model": data}
        if isinstance(data, dict) and data.get("ensemble") is not None:
            data = {"model": ENSEMBLE.name, **data}
        if isinstance(data, dict) and "model" in data and not data.get("name"):
            data = {**data, "name": data["model"]}
        return data

    @field_validator("search_space", mode="before")
    @classmethod
    def _is_a_space(cls, value: Any) -> Any:
        is_name = isinstance(value, str) and 0 < len(value) <= 255
        return value if value is None or is_name else parse_space(value)

    @model_validator(mode="after")
    def _is_known(self) -> ModelSpec:
        if self.ensemble is not None:
            self._check_ensemble()
            return self
        if self.of:
            raise ValueError(f"of is of an ensemble; say `ensemble:` {', '.join(get_args(Blend))}")
        if self.model not in catalogue():
            raise ValueError(
                f"unknown model {self.model!r}; allowed: {', '.join(sorted(catalogue()))}"
            )
        allowed = [*self.kind.parameters, *(OWN_PARAMETERS if self.kind.is_neural else ())]
        unknown = sorted(set(self.parameters) - set(allowed))
        if unknown:
            raise ValueError(
                f"{self.model} has no parameter {', '.join(unknown)}; allowed: {', '.join(allowed)}"
            )
        if problem := self.kind.problem(self.parameters):
            raise ValueError(f"parameters.{problem}")
        self._check_search()
        return self

    def _check_ensemble(self) -> None:
        if self.model != ENSEMBLE.name:
            raise ValueError("an ensemble has no `model`; it is made of those that `of` names")
        if any((self.parameters, self.exogenous, self.transform, self.search_space, self.search)):
            raise ValueError("an ensemble has `ensemble`, `of`, `name`, `intervals`, nothing else")
        if len(set(self.of)) < 2 or len(set(self.of)) < len(self.of):
            raise ValueError("of: at least two different models are wanted")
        if self.ensemble == "trimmed_mean" and len(self.of) < _FEWEST_TRIMMED:
            raise ValueError("of: trimmed_mean leaves out two models; at least three are wanted")

    def _check_search(self) -> None:
        if self.kind.searches is None and (self.search_space or self.search):
            raise ValueError(
                f"{self.model} is not searched; search_space and search are of neuralforecast's Auto "
                f"models{f'; take Auto{self.model}' if f'Auto{self.model}' in catalogue() else ''}"
            )
        space = self.search_space
        if isinstance(space, Space) and (refusals := space.refusals(self.kind)):
            raise ValueError(f"search_space: {'; '.join(refusals)}")

    @property
    def kind(self) -> ModelKind:
        """What the class can do."""
        return ENSEMBLE if self.ensemble is not None else catalogue()[self.model]

    def chosen(self, parameters: dict[str, Any]) -> ModelSpec:
        """What is fitted: of an Auto model, the class that it searches, with these parameters."""
        if self.kind.searches is None:
            return self
        update = {"model": self.kind.searches, "parameters": parameters}
        return self.model_copy(update={**update, "search_space": None, "search": None})
