"""What of a model is searched, and how: the schema of search spaces and of a search's settings.

One definition for pipeline files, for the rows of ``hyperparameter_search_spaces`` and for whatever
samples from it: every domain here is one that Optuna and Ray Tune have. Schema only. The rows are
``training.search_spaces``, sampling and trials ``search``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    RootModel,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from ts_forecast.model_catalogue import ModelKind
from ts_forecast.pipeline_source import Strict

SearchMetric = Literal[
    "mae", "mse", "rmse", "mape", "smape", "mase", "rmsse", "mqloss", "scaled_crps"
]
OF_QUANTILES = ("mqloss", "scaled_crps")
Unit = Literal["horizon", "season"]
Number = int | float
_WANTED = {
    "too_short": "at least two are wanted; a parameter of one value is written without {values}",
    "int_parsing": "a number is wanted",
    "int_type": "a number is wanted",
    "tuple_type": "a list is wanted",
}


class _Domain(BaseModel):
    """Unlike ``Strict``: true and false are values that a parameter may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Domain):
    """One of some values: ``{values: [32, 64]}``."""

    values: tuple[JsonValue, ...] = Field(min_length=2)
    times: Unit | None = Field(
        None, description="The values count horizons or seasons of the pipeline."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Choice:
        if any(value in self.values[:place] for place, value in enumerate(self.values)):
            # 1, 1.0 and true are one value to Python, and would be to a sampler.
            raise ValueError(f"values names one twice: {list(self.values)}")
        if self.times and not all(type(v) is int and v > 0 for v in self.values):
            raise ValueError(f"with times: {self.times}, values must be whole numbers above 0")
        return self


class Range(_Domain):
    """A number between two bounds, both included: ``{low: 0.0001, high: 0.1, log: true}``."""

    low: Number
    high: Number
    type: Literal["float", "integer"] = Field(
        "float", description="Must be said where both bounds are whole numbers."
    )
    log: bool = Field(False, description="Each order of magnitude is as likely as another.")
    step: Number | None = Field(None, description="Only low, low + step, … up to high.")
    times: Unit | None = Field(
        None, description="The numbers count horizons or seasons of the pipeline."
    )

    @model_validator(mode="before")
    @classmethod
    def _says_its_type(cls, data: Any) -> Any:
        bounds = (data.get("low"), data.get("high")) if isinstance(data, dict) else ()
        if bounds and "type" not in data and all(type(bound) is int for bound in bounds):
            # 0 and 1 for a share would be no search at all, 1 and 4 for layers would fail as floats.
            raise ValueError("low and high are whole numbers: say type: integer or type: float")
        return data

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a number is wanted")
        return value

    @field_validator("low", "high", "step")
    @classmethod
    def _is_finite(cls, value: Number | None) -> Number | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("a finite number is wanted")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Range:
        numbers = [n for n in (self.low, self.high, self.step) if n is not None]
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        if self.type == "integer" and any(n != int(n) for n in numbers):
            raise ValueError("with type: integer, low, high and step must be whole numbers")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.times and (self.type != "integer" or self.low < 1):
            raise ValueError(f"times: {self.times} needs type: integer and a low of at least 1")
        if self.step is None:
            return self
        if self.step <= 0:
            raise ValueError(f"step must be above 0, not {self.step}")
        steps = (self.high - self.low) / self.step
        if not math.isclose(steps, round(steps), rel_tol=1e-9):
            raise ValueError(
                f"high must lie a whole number of steps above low: {self.low} + "
                f"{math.floor(steps)} x {self.step} is not {self.high}"
            )
        return self


def _which(value: Any) -> str:
    if isinstance(value, (Choice, Range)):
        return type(value).__name__
    if isinstance(value, Mapping):
        return "Choice" if "values" in value else "Range"
    return "Constant"


Constant = None | bool | int | float | str | list[JsonValue]
Domain = Annotated[
    Annotated[Choice, Tag("Choice")]
    | Annotated[Range, Tag("Range")]
    | Annotated[Constant, Tag("Constant")],
    Discriminator(_which),
]


class Space(RootModel[dict[str, Domain]]):
    """What each parameter of a model may be: a choice, a range, or one value for all trials.

    Invariants:
        - iteration is by name: the order of keys decides nothing (JSONB does not keep it)
    """

    @property
    def domains(self) -> dict[str, Domain]:
        """The domains by parameter, names ascending."""
        return dict(sorted(self.root.items()))

    def canonical(self) -> dict[str, Any]:
        """The definition with every default spelled out: equal spaces are equal here."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        for domain in plain.values():
            if isinstance(domain, dict) and domain.get("type"):
                kind = int if domain["type"] == "integer" else float
                for bound in ("low", "high", "step"):
                    if domain[bound] is not None:
                        domain[bound] = kind(domain[bound])
        return dict(sorted(plain.items()))

    def without(self, names: Collection[str]) -> Space:
        """This space without some parameters, which are then not searched."""
        return Space.model_construct(root={k: v for k, v in self.root.items() if k not in names})

    def refusals(self, kind: ModelKind) -> list[str]:
        """What a model cannot do with this space, one phrase for each; empty if nothing."""
        name = kind.searches or kind.name
        return [
            f"{parameter}: {name} has no such parameter, allowed: {', '.join(kind.parameters)}"
            for parameter in self.domains
            if parameter not in kind.parameters
        ]

    @property
    def searched(self) -> tuple[str, ...]:
        """The parameters that are not held at one value, ascending."""
        return tuple(k for k, v in self.domains.items() if isinstance(v, (Choice, Range)))


def parse_space(content: Any) -> Space:
    """A space from its JSON or YAML.

    Raises:
        ValueError: names each wrong parameter, what was found and what is allowed.
    """
    if isinstance(content, Space):
        return content
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ValueError("a name of a stored space, or parameters with values or ranges are wanted")
    try:
        space = Space.model_validate(dict(content))
    except ValidationError as error:
        raise ValueError("; ".join(dict.fromkeys(map(_describe, error.errors())))) from None
    try:
        json.dumps(space.model_dump(), allow_nan=False)
    except ValueError:
        raise ValueError("it holds a number that is not finite") from None
    if not space.searched:
        raise ValueError(
            "nothing is searched: at least one parameter needs {values: [...]} or {low, high}"
        )
    return space


def _describe(item: Any) -> str:
    # The second part of the place is the domain's class, which the reader has not written.
    parameter, *rest = (str(part) for part in item["loc"])
    domains: dict[str, type[_Domain]] = {"Choice": Choice, "Range": Range}
    domain = domains.get(rest[0]) if rest else None
    where = ".".join([parameter, *rest[1:2]])
    if item["type"] == "extra_forbidden" and domain is not None:
        return f"{where}: unknown key, allowed: {', '.join(sorted(domain.model_fields))}"
    if item["type"] == "missing" and domain is Range:
        return f"{parameter}: it needs values, or low and high"
    message = _WANTED.get(
        item["type"].replace("float", "int"), item["msg"].removeprefix("Value error, ")
    )
    if isinstance(item["input"], Mapping):
        return f"{where}: {message}"
    return f"{where}: found {item['input']!r}, {message[:1].lower()}{message[1:]}"


class SearchSettings(Strict):
    """How a space is searched."""

    trials: int = Field(10, ge=1, le=1000, description="Combinations that are tried a quarter.")
    metric: SearchMetric | None = Field(
        None, description="What is minimized; default: mqloss with levels, else mae."
    )
    val_size: int = Field(
        0,
        ge=0,
        description="Last steps before the fit's limit that trials are measured on, from a cutoff "
        "every `step`; default: the horizon.",
    )
    seed: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Of the sampler; default: the pipeline's."
    )
    pruner: Literal["median", "none"] = Field(
        "median",
        description="What ends a trial early: being worse than the median of the others at that step.",
    )
