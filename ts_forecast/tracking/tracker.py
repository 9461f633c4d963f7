"""Mirrors of runs in outside systems.

``Tracker`` is what such a mirror promises; ``NullTracker`` mirrors nothing, so that callers need no
``if``. PostgreSQL is the record; a mirror only repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

Ending = Literal["completed", "failed", "killed"]


@runtime_checkable
class Tracker(Protocol):
    """A mirror of runs.

    Promises: no method raises for reasons of the outside system (a mirror that is down fails no
    run); ``finish`` is called exactly once after each ``start``, unless the process is killed.
    """

    def start(self, run_uuid: UUID, name: str, tags: Mapping[str, str]) -> None:
        """A run has begun."""

    def finish(self, run_uuid: UUID, status: Ending) -> None:
        """A run has ended."""


class NullTracker:
    """Mirrors nothing."""

    def start(self, run_uuid: UUID, name: str, tags: Mapping[str, str]) -> None:
        """Does nothing."""

    def finish(self, run_uuid: UUID, status: Ending) -> None:
        """Does nothing."""
