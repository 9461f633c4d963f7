"""The part of the pipeline file about champions: by what, over how long and by whom they are chosen.

Schema only. Choosing is ``evaluation.champion``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ts_forecast.pipeline_source import Strict

Metric = Literal["mae", "mse", "rmse", "mape", "smape", "mase", "rmsse", "bias"]
_OF_QUANTILES = ("mqloss", "scaled_crps")


class ChampionRule(Strict):
    """How a pipeline's champion of a quarter is chosen, from the quarters before it."""

    metric: Literal[Metric, "mqloss", "scaled_crps"] | None = Field(
        None, description="What is smallest for the best; default: the first of `metrics`."
    )
    quarters: int = Field(4, ge=1, le=40, description="Quarters before it that count.")
    margin: float = Field(
        0.02,
        ge=0,
        le=10,
        description="A model that is worse than the current champion by more than this part is "
        "refused.",
    )
    approval: bool = Field(False, description="Whether a person must let a champion go on.")

    def problem(self, metrics: tuple[str, ...], has_levels: bool) -> str | None:
        """Why the metric cannot be had of a pipeline that measures these; None if it can."""
        if self.metric in _OF_QUANTILES:
            return None if has_levels else f"champion.metric: {self.metric} needs `levels`"
        if self.metric is None or self.metric in metrics:
            return None
        return f"champion.metric: found {self.metric!r}, allowed: {', '.join(metrics)}"
