"""What work that can be shared out knows of the slots of its host.

Which slots there are, and who has which, is the executor's business (``resources``), which hands its
knowledge in as ``FreeSlots``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Turn(Protocol):
    """A slot that a process has."""

    name: str

    def renew(self) -> bool:
        """Let those that wait for the slot have it; True if nobody took it and it is ours still."""


class Helper(Protocol):
    """A process on a slot; it ends with the process that started it."""

    def has_ended(self) -> bool:
        """Whether it has; does not wait."""

    def wait(self) -> int:
        """Its exit code, when it has ended."""

    def interrupt(self) -> None:
        """Ask it to end; does not wait."""

    def stop(self) -> None:
        """Kill it if it does not end within a short grace."""


class FreeSlots(Protocol):
    """Slots of the host beside that of the caller; not for use from several threads at once."""

    @property
    def seconds_to_start(self) -> float:
        """About how long it takes until a process is at work."""

    def split(self) -> None:
        """Keep one thread of the caller's CPU slot, and lend the others as slots of one thread each.

        For the thread that works, between two pieces of work.
        """

    def rejoin(self) -> None:
        """Have all threads of the own slot again; what was started on them must have ended."""

    def close(self) -> None:
        """End all that was started, and kill what outstays a short grace."""

    def start(
        self, function: Callable[..., None], *arguments: object, left: float = ...
    ) -> Helper | None:
        """Call ``function(turn, *arguments)`` in a process on a free slot; None where none is free.

        The slot is the process's until it ends; where somebody else was quicker it ends at once.
        Function and arguments must pickle.

        Args:
            left: seconds that the caller still has to work: a slot goes to who has most.
        """
