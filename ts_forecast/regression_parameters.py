"""What the regressions on lags take from a pipeline file: names, defaults, and what is refused.

Schema only; what is read at a cutoff is ``training.lagged_inputs``, the fits are ``linear``, ``boosted``
and ``dense`` beside it. Of LightGBM only what is ours stands here; the rest is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ts_forecast.pipeline_source import Strict

Count = Annotated[int, Field(strict=True, gt=0)]
CountOrNone = Annotated[int, Field(strict=True, ge=0)]


class LagParameters(Strict):
    """Of every regression on lags.

    Attributes:
        lags: seasons back, of the target; 1 is the season that ends at the cutoff.
        exogenous_lags: the same, of exogenous columns.
        refit: fit anew at every so many cutoffs within the quarter; 0 for never.
    """

    lags: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3, 7)
    exogenous_lags: tuple[Count, ...] = (1, 7)
    refit: CountOrNone = 0


class LightGBMParameters(LagParameters):
    """Of boosted trees, beside the library's own.

    Attributes:
        differences: as mlforecast's ``Differences``.
    """

    differences: tuple[Count, ...] = ()


class LevelParameters(LagParameters):
    """Of those that can measure the target from the level at the cutoff.

    Attributes:
        level: seasons whose mean it is; 0 for none.
    """

    level: CountOrNone = 0


class LEARParameters(LevelParameters):
    """Of the lasso-estimated autoregression.

    Attributes:
        criterion: what chooses the number of inputs.
        windows: numbers of the latest cutoffs to fit on, one fit each; empty for all.
    """

    criterion: Literal["aic", "bic"] = "aic"
    windows: tuple[Count, ...] = ()


class DNNParameters(LevelParameters):
    """Of the dense nets.

    Attributes:
        hidden_sizes: units of each hidden layer.
        n_estimators: nets that are fitted from seeds of their own, and averaged.
        max_steps: of gradient descent, each on ``batch_size`` cutoffs.
    """

    level: CountOrNone = 1
    hidden_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (256, 128)
    n_estimators: Count = 4
    max_steps: Count = 700
    batch_size: Count = 64
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    dropout: float = Field(0.1, ge=0, lt=1)


REGRESSIONS: Mapping[str, type[LagParameters]] = {
    "DNN": DNNParameters,
    "LEAR": LEARParameters,
    "LightGBM": LightGBMParameters,
}
Parameters = TypeVar("Parameters", bound=LagParameters)
_WANTED = {
    "int_type": "a whole number is wanted",
    "tuple_type": "a list is wanted",
    "too_short": "at least one value is wanted",
}


def regression_problem(model: str, parameters: Mapping[str, Any]) -> str:
    """What is wrong with the parameters of a regression; empty if nothing is."""
    try:
        own_parameters(REGRESSIONS[model], parameters)
    except ValidationError as error:
        first = error.errors()[0]
        wanted = _WANTED.get(first["type"], first["msg"])
        name = first["loc"][0]
        return f"{name}: found {parameters[str(name)]!r}, {wanted}"
    return ""


def own_parameters(kind: type[Parameters], parameters: Mapping[str, Any]) -> Parameters:
    """Those of a pipeline file that are ours, and defaults.

    Raises:
        ValidationError: what ``regression_problem`` says.
    """
    own = {name: value for name, value in parameters.items() if name in kind.model_fields}
    return kind.model_validate(own)
