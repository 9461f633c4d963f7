"""Warnings and above as rows of ``system_logs``, written behind the caller's back.

The caller pays for making the fields and a queue's put. A thread writes them in batches, on a connection
of its own; a database that is slow, away or refuses costs the caller nothing, and records only when the
queue is full: how many is said in a record of its own later. The thread lives in the process that logs:
after a fork the child has an empty queue and starts a thread with its first record.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ts_forecast.logs.masking import Masker
from ts_forecast.logs.records import Fields, fields_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

_CAPACITY = 10_000
_BATCH = 500
_GATHER_SECONDS = 0.2
_IDLE_SECONDS = 10.0
_FLUSH_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_log = logging.getLogger(__name__)

Write = Callable[["Engine", list[Fields]], int]


class DatabaseHandler(logging.Handler):
    """Puts records into a bounded queue, from which a thread writes them.

    Args:
        open_engine: called in the thread; None if there is no database to write to yet.
        write: stores fields in one go or raises; returns how many it could not store at all.
        capacity: records that wait at most; more are dropped and counted.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine | None],
        write: Write,
        mask: Masker,
        *,
        capacity: int = _CAPACITY,
    ) -> None:
        super().__init__(logging.WARNING)
        self._open_engine = open_engine
        self._write = write
        self._mask = mask
        self._capacity = capacity
        self._no_flush_before = 0.0
        self._reset()
        here = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _call(here, DatabaseHandler._reset))
        # dictConfig makes logging forget handlers that it should flush at the end.
        atexit.register(_call, here, DatabaseHandler.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; returns within microseconds."""
        writer = self._writer
        if writer is not None and threading.get_ident() == writer.ident:
            # What writing itself has to say (SQLAlchemy, psycopg, this module) must not be written.
            return
        if self._queue.qsize() >= self._capacity:
            self._dropped += 1
            return
        try:
            # Reentrant, so that a record of a signal handler or a finalizer does no harm.
            self._queue.put(fields_of(record, self._mask))
            if writer is None or not writer.is_alive():
                self._start()
        except Exception:  # noqa: BLE001 — logging must not fail its caller
            self._dropped += 1

    def flush(self) -> None:
        """Wait until what was queued is written, a second at most."""
        writer = self._writer
        if writer is None or not writer.is_alive() or threading.get_ident() == writer.ident:
            return
        if time.monotonic() < self._no_flush_before:
            return
        done = threading.Event()
        self._queue.put(done)
        writer.wake.set()
        if not done.wait(_FLUSH_SECONDS):
            # The interpreter's end flushes more than once: a second in all.
            self._no_flush_before = time.monotonic() + 2 * _FLUSH_SECONDS

    def close(self) -> None:
        """Flush, and end the thread with its connection; a later record starts them again."""
        self.flush()
        writer = self._writer
        if writer is not None and writer.is_alive():
            writer.ending = True
            self._queue.put(threading.Event())
            writer.wake.set()
            writer.join(_FLUSH_SECONDS if time.monotonic() >= self._no_flush_before else 0)
        super().close()

    def _reset(self) -> None:
        """Begin anew, in a forked child too: the parent's records are the parent's to write."""
        self._queue: SimpleQueue[Fields | threading.Event] = SimpleQueue()
        self._writer: _Writer | None = None
        self._is_starting = False
        self._dropped = 0
        self._no_flush_before = 0.0

    def _start(self) -> None:
        if self._is_starting:
            # A signal handler's record, in the middle of this: the thread will find it.
            return
        self._is_starting = True
        try:
            if self._writer is None or not self._writer.is_alive():
                self._writer = _Writer(self)
                self._writer.start()
        finally:
            self._is_starting = False

    def _report_dropped(self, engine: Engine, refused: int) -> None:
        """Say in one line how many records were lost since the last time; in the writer's thread."""
        self.acquire()
        dropped, self._dropped = self._dropped + refused, 0
        self.release()
        if not dropped:
            return
        message = f"{dropped} log records are not in system_logs: the queue was full, or they were refused"
        _log.warning("%s", message)
        record = logging.makeLogRecord(
            {"name": __name__, "msg": message, "levelno": logging.WARNING, "process": os.getpid()}
        )
        try:
            self._write(engine, [fields_of(record, self._mask)])
        except Exception:  # noqa: BLE001 — it is counted again
            self.acquire()
            self._dropped += dropped
            self.release()


class _Writer(threading.Thread):
    """Takes batches from the queue and writes them, however long the database lets it wait."""

    def __init__(self, handler: DatabaseHandler) -> None:
        super().__init__(name="system_logs", daemon=True)
        self.wake = threading.Event()
        self.ending = False
        self._handler = handler
        self._queue = handler._queue
        self._engine: Engine | None = None
        self._pause = _FIRST_PAUSE
        self._is_away = False

    def run(self) -> None:
        batch: list[Fields] = []
        waiting: list[threading.Event] = []
        while True:
            self._gather(batch, waiting)
            if batch and not self._stored(batch):
                if self.ending:
                    break
                # Whoever flushes wakes it, for one attempt more.
                self.wake.wait(self._pause)
                self.wake.clear()
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)
                continue
            batch.clear()
            for event in waiting:
                event.set()
            waiting.clear()
            if self.ending and self._queue.empty():
                break
        self._disconnect()

    def _gather(self, batch: list[Fields], waiting: list[threading.Event]) -> None:
        """Wait for a first record, and a moment for more, unless somebody waits for what is there."""
        deadline: float | None = None
        while len(batch) < _BATCH:
            seconds: float | None = 0.0
            if not batch and not waiting:
                # A connection that has nothing to do is given back.
                seconds = None if self._engine is None else _IDLE_SECONDS
            elif deadline is not None and not waiting:
                seconds = max(deadline - time.monotonic(), 0.0)
            try:
                item = self._queue.get(block=seconds != 0, timeout=seconds or None)
            except Empty:
                if batch or waiting:
                    return
                self._disconnect()
                continue
            if isinstance(item, threading.Event):
                waiting.append(item)
                continue
            batch.append(item)
            deadline = deadline or time.monotonic() + _GATHER_SECONDS

    def _stored(self, batch: list[Fields]) -> bool:
        try:
            if self._engine is None:
                self._engine = self._handler._open_engine()
            if self._engine is None:
                return False
            refused = self._handler._write(self._engine, batch)
        except Exception as error:  # noqa: BLE001 — whatever it is, the next attempt may go well
            self._disconnect()
            if not self._is_away:
                self._is_away = True
                reason = " ".join(str(error).split())
                _log.info("system_logs cannot be written, records wait: %s", reason)
            return False
        self._is_away, self._pause = False, _FIRST_PAUSE
        self._handler._report_dropped(self._engine, refused)
        return True

    def _disconnect(self) -> None:
        if self._engine is not None:
            with suppress(Exception):
                self._engine.dispose()
            self._engine = None


def _call(handler: weakref.ref[DatabaseHandler], method: Callable[[DatabaseHandler], None]) -> None:
    if (alive := handler()) is not None:
        method(alive)
