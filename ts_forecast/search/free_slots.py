"""Trials side by side: processes that help a search on slots of the host that nobody uses.

Without ``FreeSlots`` a search runs its trials one after another. Each process takes trials from the study
until none is left or somebody else wants its slot.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from sqlalchemy import Engine

from ts_forecast.db.engine import create_engine
from ts_forecast.search.study import Study, join_study
from ts_forecast.search.trial import Work, run_trial
from ts_forecast.settings import Settings
from ts_forecast.slots import FreeSlots, Helper, Turn

_log = logging.getLogger(__name__)


@dataclass
class Crew:
    """The processes that help one search."""

    slots: FreeSlots | None
    settings: Settings | None
    engine: Engine
    work: Work
    study: Study
    _helpers: list[Helper] = field(default_factory=list)

    def share(self) -> None:
        """Lend the threads of the search's own slot too, if there are trials for them."""
        if self.slots is not None and self.study.left() > 1:
            self.slots.split()

    def grow(self) -> None:
        """Start a helper on each free slot, as long as there are trials for them beside ours."""
        if self.slots is None or self.settings is None:
            return
        running = [helper for helper in self._helpers if not helper.has_ended()]
        url = self.engine.url.render_as_string(hide_password=False)
        while self.study.left() > len(running) + 1:
            helper = self.slots.start(help_search, url, self.settings, self.work)
            if helper is None:
                break
            running.append(helper)
            self._helpers.append(helper)
        self._helpers = running

    def wait(self) -> None:
        """Return when all have ended; what one left undone is for the caller to find."""
        for helper in self._helpers:
            if code := helper.wait():
                _log.warning("%s: a process that helped ended with code %d.", self.work.where, code)
        self._helpers = []

    def stop(self) -> None:
        """End all of them, if the search ends early; the search's own slot is whole again."""
        for helper in self._helpers:
            helper.interrupt()
        for helper in self._helpers:
            helper.stop()
        self._helpers = []
        if self.slots is not None:
            self.slots.rejoin()


def help_search(turn: Turn, url: str, settings: Settings, work: Work) -> None:
    """Run trials of a search until none is left or the slot is wanted; in a helper's process."""
    engine = create_engine(url, settings, application_name="ts-forecast (search)")
    try:
        with join_study(engine, work.search, work.study) as study:
            while (asked := study.claim()) is not None:
                run_trial(engine, work, study, asked, slot=turn.name)
                if not turn.renew():
                    return
    finally:
        engine.dispose()
