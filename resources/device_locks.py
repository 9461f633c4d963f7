"""Which step has which device: one ``flock`` a device, taken in the step's own process.

The kernel frees a lock with its holder, however that ends; there is nothing to clean up and nothing
to expire. A process that the step has forked keeps the lock with it, as it may use the device too.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from resources.devices import Device
from ts_forecast.errors import DeviceError

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 2.0


def lock_path(folder: Path, device: Device) -> Path:
    """The lock file of a device; while it is held it names the holder."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', device.identifier)}.lock"


@contextmanager
def take_device(
    folder: Path,
    devices: Sequence[Device],
    *,
    holder: str,
    on_wait: Callable[[], None] = lambda: None,
    is_there: Callable[[Device], bool] = lambda _device: True,
) -> Iterator[Device]:
    """Hold the first device that is free, waiting as long as all are busy.

    Args:
        folder: where the lock files lie; made if absent.
        devices: those to choose from, preferred first.
        holder: who takes it, for whoever reads the lock file.
        on_wait: called once when the wait gets long.
        is_there: asked of a device that is free; one that has disappeared is passed over.

    Raises:
        DeviceError: all of them have disappeared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    is_long = False
    gone: set[Device] = set()
    while len(gone) < len(devices):
        for device in devices:
            descriptor = take_lock(lock_path(folder, device))
            if descriptor is None:
                continue
            try:
                if not is_there(device):
                    gone.add(device)
                    continue
                write_holder(descriptor, os.getpid(), holder)
                yield device
            finally:
                os.close(descriptor)
            return
        if not is_long and time.monotonic() - started > _PATIENCE_SECONDS:
            is_long = True
            on_wait()
        time.sleep(_POLL_SECONDS)
    raise DeviceError(
        f"None of {', '.join(device.identifier for device in devices)} is there any more.",
        remedy="See with nvidia-smi what became of them; start the run again for the devices of now.",
    )


def write_holder(descriptor: int, pid: int, holder: str) -> None:
    """Say in a lock file who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid} {holder}\n".encode(), 0)


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None while another process does.

    It is not inherited by programs that the step starts unless it is passed on, only by its forks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
