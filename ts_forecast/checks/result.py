"""What a check is called, what it stops, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from ts_forecast.errors import PredictionError

if TYPE_CHECKING:
    from ts_forecast.check_limits import CheckName


@dataclass(frozen=True)
class CheckKind:
    """A check before it is made.

    Attributes:
        is_blocking: a failure is wrong data, which nothing may be made of; else it is a warning.
    """

    is_blocking: bool
    description: str


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        reason: one line, for people: why it passed or did not.
        figures: what it was decided by; numbers are plotted over quarters.
    """

    name: CheckName
    passed: bool
    reason: str
    figures: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def is_blocking(self) -> bool:
        """Whether what depends on it must not be made."""
        return KINDS[self.name].is_blocking and not self.passed


class RefusedSliceError(PredictionError):
    """A slice fails a blocking check before it is published; readers still see the one before it.

    Attributes:
        results: of all checks that were made; empty in another process.
    """

    results: tuple[CheckResult, ...] = ()

    @classmethod
    def of(cls, where: str, results: Sequence[CheckResult]) -> Self:
        """Of results among which at least one blocks."""
        bad = "; ".join(f"{one.name}: {one.reason}" for one in results if one.is_blocking)
        error = cls(
            f"{where}: the forecasts were not published: {bad}.",
            remedy="Readers still see the forecasts before these.",
        )
        error.results = tuple(results)
        return error


KINDS: dict[CheckName, CheckKind] = {
    "set_aside": CheckKind(
        False, "No file of the source is set aside; of the source as it is, not of a quarter."
    ),
    "schema": CheckKind(
        True, "The stored columns are those of the pipeline, on its grid, in the quarter, finite."
    ),
    "duplicates": CheckKind(True, "One row for each series and timestamp."),
    "gaps": CheckKind(False, "Few points of a series are without an observation."),
    "freshness": CheckKind(False, "The newest observation is as new as it can be expected."),
    "drift": CheckKind(
        False,
        "The target and exogenous columns are distributed as in the same quarter of the training "
        "window's years: population stability index of values standardized for each series.",
    ),
    "leakage": CheckKind(True, "The model has seen nothing after the quarter's first cutoff."),
    "complete_slice": CheckKind(
        True, "One row for each model, series, target and cutoff that the definition calls for."
    ),
    "sane_values": CheckKind(
        True, "Every forecast is finite, and near the range of its series' history."
    ),
    "beats_baseline": CheckKind(False, "Every model is more accurate than the baseline."),
    "interval_coverage": CheckKind(
        False, "Intervals hold as many of the actual values as their level says."
    ),
    "accuracy_decay": CheckKind(False, "The error is not much larger than in the quarters before."),
}
