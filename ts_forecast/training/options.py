"""What a fit is asked for beside the model: where to keep checkpoints, whom to tell how it goes.

None of it changes the fitted model, so none of it is in a fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is.

    Attributes:
        step: optimizer steps made, of at most ``steps``.
        points: what was measured since the last report, as ``(curve, step, loss)``.
        speed: steps a second since the fit began or resumed.
    """

    step: int
    steps: int
    points: tuple[tuple[str, int, float], ...]
    speed: float

    @property
    def loss(self) -> float | None:
        """The newest training loss of the report; None if it has none."""
        losses = [loss for curve, _, loss in self.points if curve == "train_loss"]
        return losses[-1] if losses else None

    def __str__(self) -> str:
        left = (self.steps - self.step) / self.speed if self.speed > 0 else 0.0
        loss = "" if self.loss is None else f", train_loss {self.loss:.5g}"
        return (
            f"step {self.step} of {self.steps}{loss}, {self.speed:.3g} steps/s, {left:.0f} s left"
        )


@dataclass(frozen=True)
class FitOptions:
    """How a fit is looked after.

    Attributes:
        scratch: a folder of this fit alone, for checkpoints; None: a killed fit begins anew. It is
            removed when the fit ends, well or with an error of its own.
        checkpoint_seconds: at least so long between two checkpoints.
        report: told every ``report_seconds`` what happened since; what it raises ends the fit.
        look: called every ``look_every`` steps, except the last, with the step and a model of the
            weights so far; what it raises ends the fit.
        memory_wait: seconds to wait for memory that others hold, before the fit is refused.
    """

    scratch: Path | None = None
    checkpoint_seconds: float = 60.0
    report: Callable[[FitProgress], None] | None = None
    report_seconds: float = 5.0
    look: Callable[[int, Any], None] | None = None
    look_every: int = 1
    memory_wait: float = 600.0
