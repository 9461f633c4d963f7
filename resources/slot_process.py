"""What runs on a lent slot, in a process of its own: take the slot, call the function, hand it over.

The other side is ``free_slots``. The process is forked from a server of the step that asks, never from
the step itself: that has threads and connections by then.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from resources.confinement import confine
from resources.device_locks import lock_path, take_lock, write_holder
from resources.devices import Device
from ts_forecast.logs.context import bound
from ts_forecast.logs.setup import install
from ts_forecast.settings import load_settings


@dataclass(frozen=True)
class Order:
    """What to do, and where.

    Attributes:
        locks: folder of the lock files.
        holder: who takes the slot, for whoever reads its lock file.
        about: fields of what it logs.
        function: called with the slot and the arguments.
    """

    device: Device
    locks: Path
    holder: str
    about: Mapping[str, object]
    function: Callable[..., None]
    arguments: tuple[object, ...]


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


def run_on_slot(order: Order) -> None:
    """Do what the order says, under the slot's lock; nothing where somebody else has it by now."""
    descriptor = take_lock(lock_path(order.locks, order.device))
    if descriptor is None:
        return
    write_holder(descriptor, os.getpid(), order.holder)
    settings = load_settings()
    install(settings)
    confine(order.device, settings)
    with bound(**order.about):
        order.function(HeldSlot(order.device.identifier, descriptor), *order.arguments)
