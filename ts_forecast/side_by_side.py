"""The quarters of one step side by side: processes on free slots take those that it has not come to.

A step does its quarters one after another, the oldest first. Where it has several, and has worked for a
while, processes beside it (``slots``) begin with the last one. Who does which is agreed on by locks in a
folder of the step's own, so that a quarter whose process died is free again, and the step does it
itself. Nothing here knows what is done.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine

from ts_forecast.db.engine import create_engine
from ts_forecast.logs.context import bound
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.slots import FreeSlots, Helper, Turn

T = TypeVar("T")
Tell = Callable[[Quarter, object], None]
"""Told of a quarter's progress, of whatever type the work has for it; from any thread."""
Work = Callable[[Engine, Settings, Quarter, Tell], T]
"""Does a quarter; done twice it is found done. It, what it returns and what it tells must pickle."""

# Help is asked for when a step has worked so many times as long as it takes to come.
_PATIENCE = 4.0
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


@dataclass(frozen=True)
class Desk(Generic[T]):
    """Who does which quarter, and what has become of those that are done.

    Attributes:
        folder: holds the files of these quarters alone.
    """

    folder: Path
    quarters: tuple[Quarter, ...]

    @contextmanager
    def claimed(self, quarter: Quarter) -> Iterator[bool]:
        """Hold a quarter; False while another process does. It is free when its holder ends."""
        path = self._path(quarter, "lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def is_open(self, quarter: Quarter) -> bool:
        """Whether a process beside the step may do it: nobody does, has done or has failed to."""
        if any(self._path(quarter, kind).exists() for kind in ("done", "failed")):
            return False
        with self.claimed(quarter) as is_free:
            return is_free

    def count_open(self) -> int:
        """How many quarters ``is_open`` is true of."""
        return sum(self.is_open(quarter) for quarter in self.quarters)

    def store(self, quarter: Quarter, outcome: T) -> None:
        """Keep what became of it; it is there whole or not at all."""
        self._write(quarter, "done", outcome)

    def stored(self, quarter: Quarter) -> tuple[T] | None:
        """What became of it; None if nothing has yet."""
        return self._read(quarter, "done")

    def fail(self, quarter: Quarter) -> None:
        """Leave it to the step."""
        self._path(quarter, "failed").touch()

    def note(self, quarter: Quarter, progress: object) -> None:
        """Say how far it is; what was said before is forgotten."""
        self._write(quarter, "progress", progress)

    def take_note(self, quarter: Quarter) -> tuple[Any] | None:
        """What was said since the last time; None if nothing was."""
        found = self._read(quarter, "progress")
        self._path(quarter, "progress").unlink(missing_ok=True)
        return found

    def _path(self, quarter: Quarter, kind: str) -> Path:
        return self.folder / f"{quarter.key}.{kind}"

    def _write(self, quarter: Quarter, kind: str, value: object) -> None:
        draft = self._path(quarter, f"{kind}.{os.getpid()}")
        draft.write_bytes(pickle.dumps(value, protocol=5))
        draft.rename(self._path(quarter, kind))

    def _read(self, quarter: Quarter, kind: str) -> tuple[Any] | None:
        try:
            body = self._path(quarter, kind).read_bytes()
        except FileNotFoundError:
            return None
        return (pickle.loads(body),)  # noqa: S301 — from a process of ours, in a folder of our own


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
        """Start a process on each free slot as long as there is something left to do for it."""
        try:
            while not self.is_over.wait(_LOOK_SECONDS):
                self._pass_on()
                if not self._all_ended_well():
                    # Its quarter is the step's now. More of them might end alike.
                    break
                if not self.are_due():
                    continue
                if count := self.desk.count_open():
                    each = fmean(self.seconds) if self.seconds else time.monotonic() - self._begun
                    left = count * each / (1 + len(self._running))
                    helper = self.slots.start(help_quarters, *self.arguments, left=left)
                    self._running += [] if helper is None else [helper]
        except Exception:
            # The step can do without.
            _log.warning("Nobody helps with the quarters of this step any more.", exc_info=True)
        finally:
            while self._running and not self.is_over.wait(_LOOK_SECONDS):
                self._pass_on()
            for helper in self._running:
                helper.interrupt()
            self.slots.close()

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
