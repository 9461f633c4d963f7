"""Slots that nobody uses, lent to a step that can work on several: a process on each, under its lock.

A step that has a device is offered the others (``offer``), and whatever it runs asks for them
(``offered``). A process has its slot's lock for as long as it lives, by the descriptor that it is
started with; it hands the slot over when asked between two pieces of work. The pool ``gpu`` knows nothing
of it: a step that gets a place there waits for the lock, at most until a piece of work is done.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.device_locks import lock_path, take_lock, write_holder
from resources.devices import Device

_PROCESS = "resources.slot_process"
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class SlotProcess:
    """A process on a slot."""

    process: subprocess.Popen[bytes]

    def has_ended(self) -> bool:
        """Whether it has; does not wait."""
        return self.process.poll() is not None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait()

    def interrupt(self) -> None:
        """Ask it to end; does not wait."""
        self.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Kill it if it does not end within a short grace."""
        try:
            self.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class FreeSlots:
    """The host's devices, of which the caller holds one already.

    Attributes:
        locks: folder of the lock files.
        holder: who takes them, for whoever reads a lock file.
    """

    devices: Sequence[Device]
    locks: Path
    holder: str

    def start(self, function: Callable[..., None], *arguments: object) -> SlotProcess | None:
        """Call ``function(turn, *arguments)`` in a process on a free slot; None where none is free.

        The process sees that device only and has its share of the cores. It ends with the one that
        started it.
        """
        for device in self.devices:
            descriptor = take_lock(lock_path(self.locks, device))
            if descriptor is None:
                continue
            try:
                process = _started(device, descriptor)
                write_holder(descriptor, process.pid, self.holder)
            finally:
                # The process has its own; the lock is free when that one is closed.
                os.close(descriptor)
            order = pickle.dumps((device, function, arguments), protocol=5)
            assert process.stdin is not None
            try:
                with process.stdin as pipe:
                    pipe.write(order)
            except BrokenPipeError:
                # It ended before it listened: its code says so to whoever waits.
                pass
            return SlotProcess(process)
        return None


@dataclass(frozen=True)
class HeldSlot:
    """The slot of this process.

    Attributes:
        name: of the device.
        descriptor: holds its lock.
    """

    name: str
    descriptor: int
    # Longer than those that wait for a lock sleep between two looks.
    pause_seconds: float = 0.2

    def renew(self) -> bool:
        """Let those that wait for the slot have it; True if nobody took it and it is ours still."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        time.sleep(self.pause_seconds)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_OFFERED: list[FreeSlots] = []


@contextmanager
def offer(slots: FreeSlots) -> Iterator[None]:
    """Let what runs in the block, in this process, use free slots beside its own."""
    _OFFERED.append(slots)
    try:
        yield
    finally:
        _OFFERED.remove(slots)


def offered() -> FreeSlots | None:
    """The slots that this process may use beside its own; None where nobody has offered any."""
    return _OFFERED[-1] if _OFFERED else None


def _started(device: Device, descriptor: int) -> subprocess.Popen[bytes]:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from {_PROCESS} import main; main({descriptor}, {os.getpid()})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        env={**os.environ, **device.environment},
        pass_fds=[descriptor],
    )
