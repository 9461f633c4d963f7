"""The quarters of one step side by side: processes on free slots take those that it has not come to.

A step does its quarters one after another, the oldest first. Where it has several, and has worked for a
while, processes beside it (``slots``) begin with the last one. Who does which is agreed on at a
``quarter_desk``; a quarter whose process died is free again, and the step does it itself. Nothing here knows
what is done.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from sqlalchemy import Engine

from ts_forecast.db.engine import create_engine
from ts_forecast.logs.context import bound
from ts_forecast.quarter_desk import Desk
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.slots import FreeSlots, Helper, Turn

T = TypeVar("T")
Tell = Callable[[Quarter, object], None]
"""Told of a quarter's progress, of whatever type the work has for it; from any thread."""
Work = Callable[[Engine, Settings, Quarter, Tell], T]
"""Does a quarter; done twice it is found done. It, what it returns and what it tells must pickle."""

# Help is asked for when a step has worked so many times as long as it takes to come.
_PATIENCE = 2.0
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 0.1
_log = logging.getLogger(__name__)


@contextmanager
def side_by_side(
    work: Work[T],
    engine: Engine,
    settings: Settings,
    quarters: Sequence[Quarter],
    *,
    slots: FreeSlots | None,
    tell: Tell = lambda _quarter, _progress: None,
) -> Iterator[Callable[[Quarter], T]]:
    """What becomes of each quarter, for a caller that asks for one after another, oldest first.

    A quarter that nobody has begun is done in this process. What fails in another process is repeated in
    this one, whose error it then is. When the block ends, so does everything that was started.

    Args:
        slots: where others may work; None: nowhere.
        tell: called in another thread with what other processes tell, about once a second.

    Yields:
        ``result(quarter)``; raises what the work raises.
    """
    if slots is None or len(quarters) < 2:
        yield lambda quarter: work(engine, settings, quarter, tell)
        return
    with tempfile.TemporaryDirectory(prefix="ts-forecast-quarters-") as folder:
        desk: Desk[T] = Desk(Path(folder), tuple(quarters))
        url = engine.url.render_as_string(hide_password=False)
        helpers = _Helpers(slots, desk, tell, (url, settings, work, desk))
        watch = threading.Thread(target=copy_context().run, args=(helpers.watch,), daemon=True)
        watch.start()

        def result(quarter: Quarter) -> T:
            while True:
                with desk.claimed(quarter) as is_ours:
                    if is_ours:
                        stored: tuple[T] | None = desk.stored(quarter)
                        if stored is not None:
                            return stored[0]
                        if helpers.are_due() and desk.count_open():
                            slots.split()
                        begun = time.monotonic()
                        outcome = work(engine, settings, quarter, tell)
                        helpers.seconds.append(time.monotonic() - begun)
                        desk.store(quarter, outcome)
                        return outcome
                time.sleep(_WAIT_SECONDS)

        try:
            yield result
        finally:
            helpers.is_over.set()
            watch.join()


@dataclass
class _Helpers:
    """The processes beside one step; watched over in a thread, as the step is at work itself.

    Attributes:
        seconds: that the step took for each of its own quarters.
    """

    slots: FreeSlots
    desk: Desk[Any]
    tell: Tell
    arguments: tuple[object, ...]
    is_over: threading.Event = field(default_factory=threading.Event)
    seconds: list[float] = field(default_factory=list)
    _running: list[Helper] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    def watch(self) -> None:
        """Have help come and go until the step is over; then end what is left of it."""
        try:
            self._ask_for_help()
            while self._running and not self.is_over.wait(_LOOK_SECONDS):
                self._pass_on()
        except Exception:
            # The step can do without.
            _log.warning("Nobody helps with the quarters of this step any more.", exc_info=True)
        finally:
            for helper in self._running:
                helper.interrupt()
            self.slots.close()

    def _ask_for_help(self) -> None:
        """Start a process on each free slot as long as there is something left to do for it."""
        while not self.is_over.wait(_LOOK_SECONDS):
            self._pass_on()
            if not self._all_ended_well():
                # Its quarter is the step's now. More of them might end alike.
                return
            if not self.are_due():
                continue
            each = fmean(self.seconds) if self.seconds else time.monotonic() - self._begun
            count = self.desk.count_open()
            for _ in range(count):
                left = count * each / (1 + len(self._running))
                helper = self.slots.start(help_quarters, *self.arguments, left=left)
                if helper is None:
                    break
                self._running.append(helper)

    def are_due(self) -> bool:
        """Whether the step has worked long enough for help to be worth its start."""
        return time.monotonic() - self._begun > _PATIENCE * self.slots.seconds_to_start

    def _all_ended_well(self) -> bool:
        ended = [helper for helper in self._running if helper.has_ended()]
        self._running = [helper for helper in self._running if helper not in ended]
        codes = [helper.wait() for helper in ended]
        if any(codes):
            _log.warning(
                "A process that helped with quarters ended with code %d.", max(codes, key=abs)
            )
        return not any(codes)

    def _pass_on(self) -> None:
        for quarter in self.desk.quarters:
            if (said := self.desk.take_note(quarter)) is not None:
                self.tell(quarter, said[0])


def help_quarters(turn: Turn, url: str, settings: Settings, work: Work[T], desk: Desk[T]) -> None:
    """Do quarters from the last on until none is left or the slot is wanted; in a helper's process.

    Raises:
        Exception: what the work raised; the quarter is the step's then.
    """
    engine = create_engine(url, settings, application_name="ts-forecast (beside)")
    try:
        for quarter in reversed(desk.quarters):
            if not desk.is_open(quarter):
                continue
            with desk.claimed(quarter) as is_ours, bound(quarter=quarter.label, slot=turn.name):
                if not is_ours or desk.stored(quarter) is not None:
                    continue
                try:
                    desk.store(quarter, work(engine, settings, quarter, desk.note))
                except Exception:
                    desk.fail(quarter)
                    raise
            if not turn.renew():
                return
    finally:
        engine.dispose()
