"""Who does which of a step's quarters, agreed on by several processes, and what has become of each.

Files in a folder that the step makes for it. A lock says who does a quarter, and the kernel frees it with
its holder. When to ask whom for help is ``side_by_side``.
"""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ts_forecast.quarters import Quarter

T = TypeVar("T")


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
