"""The ``checks`` of a pipeline file: how much is worrying, and which checks are left out.

Schema only. What is checked, and what a failed check stops, is ``checks``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ts_forecast.pipeline_source import Strict

CheckName = Literal[
    "set_aside",
    "schema",
    "duplicates",
    "gaps",
    "freshness",
    "drift",
    "leakage",
    "complete_slice",
    "sane_values",
    "beats_baseline",
    "interval_coverage",
    "accuracy_decay",
]


class CheckLimits(Strict):
    """Limits of the checks; the defaults are meant to be silent on healthy data."""

    skip: tuple[CheckName, ...] = Field((), description="Checks that are not made.")
    max_lag_steps: int = Field(
        0,
        ge=0,
        description="freshness: steps that the newest observation may be late; default: the horizon.",
    )
    max_missing_share: float = Field(
        0.05, ge=0, le=1, description="gaps: share of a quarter's points without an observation."
    )
    max_psi: float = Field(
        0.25,
        gt=0,
        description="drift: population stability index of a column against the training window.",
    )
    max_range_multiple: float = Field(
        3.0,
        gt=0,
        description="sane_values: how many ranges of its history a forecast may lie outside of it.",
    )
    min_skill: float = Field(
        0.0, lt=1, description="beats_baseline: 1 - error / the baseline's error, at least."
    )
    coverage_tolerance: float = Field(
        0.1, gt=0, lt=1, description="interval_coverage: distance from the level, as a fraction."
    )
    max_decay: float = Field(
        0.5,
        gt=0,
        description="accuracy_decay: growth of the error that is let through; 0.5 is 50 %.",
    )
    decay_quarters: int = Field(
        4,
        ge=1,
        le=40,
        description="accuracy_decay: scored quarters before, compared by their median.",
    )
