"""The weights at which the validation loss was least; the library keeps the last ones.

In memory: weights are small beside what a fit needs, and they travel with its checkpoint.
"""

from __future__ import annotations

import math
from typing import Any


class BestWeights:
    """Remembers the weights of the best validation; without a validation window, nothing.

    Attributes:
        step: at which they were; None if there is none.
        loss: the validation loss there.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.loss = math.inf
        self._weights: dict[str, Any] = {}

    def look(self, trainer: Any, model: Any) -> None:
        """Called when a validation has ended; ties go to the earlier one."""
        if trainer.sanity_checking or not model.valid_trajectories:
            return
        loss = float(model.valid_trajectories[-1][1])
        if loss < self.loss:
            self.loss, self.step = loss, int(trainer.global_step)
            self._weights = {
                name: w.detach().cpu().clone() for name, w in model.state_dict().items()
            }

    def put_back(self, model: Any) -> None:
        """Give the model the best weights, if a validation was finite."""
        if self._weights:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"step": self.step, "loss": self.loss, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.step, self.loss, self._weights = state["step"], state["loss"], state["weights"]
