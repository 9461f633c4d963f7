"""Looking at what a model would forecast, while it is fitted, without a trace in the fit.

The one that looks gets a copy, for forecasting changes what a model holds of its datasets, and it draws
from the generators that the fit draws from: their states are put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ts_forecast.training.checkpoint import generators, set_generators


class Midway:
    """Calls somebody every some steps with the step and a model of the same weights.

    Not at the last step: what the model forecasts then is known after the fit.

    Args:
        look: what it raises ends the fit.
        build: an empty model of the same shape.
    """

    def __init__(
        self, every: int, look: Callable[[int, Any], None], build: Callable[[], Any]
    ) -> None:
        self._every, self._look, self._build = every, look, build
        self._seen = 0
        self._copy: Any = None

    def after_step(self, trainer: Any, model: Any, *_: Any) -> None:
        """Called by Lightning after each batch."""
        step = int(trainer.global_step)
        if step == self._seen or step % self._every or step >= trainer.max_steps:
            return
        self._seen = step
        states = generators()
        try:
            if self._copy is None:
                self._copy = self._build()
                # Forecasts are made in full precision.
                self._copy.trainer_kwargs.pop("precision", None)
            self._copy.load_state_dict(model.state_dict())
            self._look(step, self._copy)
        finally:
            set_generators(states)
