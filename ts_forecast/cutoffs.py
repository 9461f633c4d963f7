"""Which forecasts a quarter's slice consists of.

The definition that the row counts, the leakage rule and the tests share: target dates of the
quarter, the cutoffs whose horizon reaches them, and how far the quarter's model may look. Which
series are forecast from which cutoff depends on data and lives in ``predictions``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ts_forecast.frequency import Grid, IntArray
from ts_forecast.quarters import Quarter


@dataclass(frozen=True)
class SlicePlan:
    """The forecasts whose target date lies in one quarter.

    Attributes:
        quarter: the quarter of the target dates.
        horizon: steps ahead that every cutoff forecasts.
        first_target, last_target: grid indices of the quarter's first and last target, inclusive.
        cutoffs: ascending grid indices of all cutoffs that reach a target of the quarter.

    Invariants:
        - every target of the quarter is reached by ``ceil(horizon / step)`` or one fewer cutoffs
        - ``fit_until < first_target``: the model of a quarter has seen nothing of it
    """

    quarter: Quarter
    horizon: int
    first_target: int
    last_target: int
    cutoffs: IntArray

    @property
    def fit_until(self) -> int:
        """Last grid index that the quarter's model may be fitted on: its first cutoff, if before it.

        Where the horizon is longer than the step, forecasts of the quarter's first targets are
        issued before the quarter starts; a model fitted on later data would know their future.
        Where the step is longer, the first cutoff may lie inside the quarter; the model ends before.
        """
        before = self.first_target - 1
        return min(int(self.cutoffs[0]), before) if len(self.cutoffs) else before

    def pairs(self, cutoffs: IntArray | None = None) -> tuple[IntArray, IntArray]:
        """Every (cutoff, step ahead) whose target lies in the quarter, cutoff-major."""
        cutoffs = self.cutoffs if cutoffs is None else cutoffs
        ahead = np.arange(1, self.horizon + 1)
        targets = cutoffs[:, None] + ahead[None, :]
        row, column = np.nonzero((targets >= self.first_target) & (targets <= self.last_target))
        return cutoffs[row], ahead[column]


def plan_slice(
    grid: Grid, quarter: Quarter, *, horizon: int, step: int, end: pd.Timestamp | None = None
) -> SlicePlan:
    """The slice of a quarter on a grid.

    Cutoffs are where the first target's grid index is a multiple of ``step``: midnights for 24
    hourly steps, Sundays (first target Monday) for 7 daily ones.

    Args:
        end: last timestamp of the pipeline; later targets are not forecast.
    """
    first_target = grid.first_from(pd.Timestamp(quarter.start))
    last_target = grid.first_from(pd.Timestamp(quarter.end)) - 1
    if end is not None:
        last_target = min(last_target, int(grid.index(pd.DatetimeIndex([end]))[0]))
    # A quarter after the pipeline's end has no target, thus no cutoff that reaches one.
    first_issued = first_target - horizon if first_target <= last_target else last_target
    issued = np.arange(first_issued, last_target, dtype=np.int64)
    return SlicePlan(
        quarter=quarter,
        horizon=horizon,
        first_target=first_target,
        last_target=last_target,
        cutoffs=issued[(issued + 1) % step == 0],
    )


def cutoffs_before(last: int, horizon: int, step: int, size: int) -> IntArray:
    """Cutoffs whose targets all lie in the ``size`` steps that end with ``last``; at least one.

    Ascending. They lie where those of slices do, so the newest may lie up to a step before
    ``last - horizon``.

    Args:
        last: grid index of the last target.
    """
    newest = last - horizon
    newest -= (newest + 1) % step
    oldest = min(last - size, newest)
    return np.arange(newest, oldest - 1, -step, dtype=np.int64)[::-1]
