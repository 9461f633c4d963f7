"""Slots that nobody uses, lent to a step that can work on several: a process on each, under its lock.

A step that has a device is offered the others (``offer``), and whatever it runs asks for them
(``offered``). The processes are forked from a server of the step's own; what runs in one is
``slot_process``. Steps come first: while some wait for the pool ``gpu``, no slot is lent, and a process
hands its slot over when asked between two pieces of work. A step that gets a place in the pool may so
wait for a lock, at most until a piece of work is done.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from resources.confinement import confine
from resources.device_locks import lock_path, take_lock
from resources.devices import Device
from resources.forkserver import ForkServer, Task
from resources.slot_process import Order, run_on_slot
from resources.slot_wishes import take_back, wish
from resources.zygote import Zygote
from ts_forecast.logs.context import current
from ts_forecast.settings import load_settings

_PRELOAD = ("resources.slot_process",)
_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.05
# About, of a server that a zygote gives birth to, and of one that imports the libraries.
_BORN_SECONDS, _IMPORT_SECONDS = 1.0, 12.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlotProcess:
    """A process on a slot.

    Attributes:
        server: that it was forked from.
        key: its name there.
    """

    server: ForkServer
    key: str

    def has_ended(self) -> bool:
        """Whether it has; does not wait."""
        return self.server.ended(self.key) is not None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        while (ended := self.server.ended(self.key)) is None:
            time.sleep(_POLL_SECONDS)
        return -signal.SIGKILL if ended.code is None else ended.code

    def interrupt(self) -> None:
        """Ask it to end; does not wait."""
        self.server.interrupt(self.key)

    def stop(self) -> None:
        """Kill it if it does not end within a short grace."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self.server.kill(self.key)
        self.wait()


@dataclass
class FreeSlots:
    """The host's devices, and parts of the caller's own. ``start`` is for one thread at a time.

    Attributes:
        devices: those of the host.
        locks: folder of the lock files.
        holder: who takes them, for whoever reads a lock file.
        preload: modules that the processes need, imported once.
        zygote: where a process is to be had that has its libraries imported.
        environment: what differs in theirs from that of this process; None removes a variable.
        are_wanted: whether steps wait for slots.
        own: the device that the caller holds; None if it needs none.
    """

    devices: Sequence[Device]
    locks: Path
    holder: str
    preload: Sequence[str] = ()
    zygote: Zygote | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    are_wanted: Callable[[], bool] = lambda: False
    own: Device | None = None
    _parts: tuple[Device, ...] = field(default=(), init=False)
    _server: ForkServer | None = field(default=None, init=False)
    _helpers: dict[Device, SlotProcess] = field(default_factory=dict, init=False)
    _started: int = field(default=0, init=False)

    @property
    def seconds_to_start(self) -> float:
        """About how long it takes until a process is at work."""
        is_quick = self._server is not None or (
            self.zygote is not None and self.zygote.seems_there()
        )
        return _BORN_SECONDS if is_quick else _IMPORT_SECONDS

    def split(self) -> None:
        """Keep one thread of the caller's CPU slot, and lend the others as slots of one thread each.

        Several fits of one thread are much faster than one of several. For the thread that works, and
        between two pieces of work: libraries keep the number of threads by thread.
        """
        own = self.own
        if own is None or own.is_gpu or self._parts:
            return
        self._parts = tuple(
            replace(own, identifier=f"{own.identifier}.{part}", threads=1)
            for part in range(1, own.threads)
        )
        confine(replace(own, threads=1), load_settings())

    def rejoin(self) -> None:
        """Have all threads of the own slot again; what was started on them must have ended."""
        if self.own is not None and self._parts:
            self._parts = ()
            confine(self.own, load_settings())

    def start(
        self, function: Callable[..., None], *arguments: object, left: float = math.inf
    ) -> SlotProcess | None:
        """Call ``function(turn, *arguments)`` in a process on a free slot; None where none is free.

        The process sees that device only and has its share of the cores. It ends with the one that
        started it. Where somebody takes the slot before it does, it ends at once, with code 0.

        Args:
            left: seconds that the caller still has to work: a slot of the host goes to who has most.
        """
        device = self._first_free(self._parts)
        if device is None and wish(self._wishes, left) and not self.are_wanted():
            device = self._first_free(self.devices)
        if device is None:
            return None
        if self._server is None:
            self._server = ForkServer(
                preload=(*self.preload, *_PRELOAD),
                environment=self.environment,
                zygote=self.zygote,
                grace_seconds=_GRACE_SECONDS,
            )
        self._started += 1
        helper = SlotProcess(self._server, f"{device.identifier}, {self._started}")
        order = Order(device, self.locks, self.holder, dict(current()), function, arguments)
        self._server.submit(helper.key, Task(run_on_slot, (order,)))
        self._helpers[device] = helper
        _log.info("Help comes on %s; its server was %s.", device.identifier, self._server.origin)
        return helper

    def close(self) -> None:
        """End what was started here and is left, and want no more."""
        take_back(self._wishes)
        if self._server is not None:
            self._server.close()
            self._server = None
        self._helpers.clear()

    @property
    def _wishes(self) -> Path:
        return self.locks / "wishes"

    def _first_free(self, devices: Sequence[Device]) -> Device | None:
        for device in devices:
            helper = self._helpers.get(device)
            if helper is not None and not helper.has_ended():
                continue
            descriptor = take_lock(lock_path(self.locks, device))
            if descriptor is not None:
                os.close(descriptor)
                return device
        return None


_OFFERED: list[FreeSlots] = []


@contextmanager
def offer(slots: FreeSlots) -> Iterator[None]:
    """Let what runs in the block, in this process, use free slots beside its own."""
    _OFFERED.append(slots)
    try:
        yield
    finally:
        _OFFERED.remove(slots)
        slots.close()


def offered() -> FreeSlots | None:
    """The slots that this process may use beside its own; None where nobody has offered any."""
    return _OFFERED[-1] if _OFFERED else None
