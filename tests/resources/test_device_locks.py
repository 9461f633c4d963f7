"""Device locks: exclusive between processes, freed by the kernel, waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from resources.device_locks import lock_path, take_device
from resources.devices import Device
from ts_forecast.errors import DeviceError

ONE, TWO = (Device(name, is_gpu=True, threads=1) for name in ("GPU-1", "MIG-2/1/0"))
SPAWN = multiprocessing.get_context("spawn")


def _hold(folder: Path, taken: object) -> None:
    with take_device(folder, [ONE, TWO], holder="another") as device:
        taken.put(device.identifier)  # type: ignore[attr-defined]
        time.sleep(60)


def test_take_device__passes_over_a_busy_one_and_gets_it_after_sigkill(tmp_path: Path) -> None:
    taken = SPAWN.Queue()
    other = SPAWN.Process(target=_hold, args=(tmp_path, taken))
    other.start()
    assert taken.get(timeout=20) == ONE.identifier
    assert lock_path(tmp_path, ONE).read_text() == f"{other.pid} another\n"

    with take_device(tmp_path, [ONE, TWO], holder="test") as device:
        assert device == TWO

    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with take_device(tmp_path, [ONE, TWO], holder="test") as device:
        assert device == ONE


def test_take_device__waits_for_the_only_one_and_says_so(tmp_path: Path) -> None:
    taken = SPAWN.Queue()
    other = SPAWN.Process(target=_hold, args=(tmp_path, taken))
    other.start()
    taken.get(timeout=20)
    waits: list[float] = []

    def end_the_other() -> None:
        waits.append(time.monotonic())
        other.kill()

    started = time.monotonic()
    with take_device(tmp_path, [ONE], holder="test", on_wait=end_the_other) as device:
        assert device == ONE
    assert len(waits) == 1 and waits[0] - started >= 1.9
    other.join()


def test_take_device__passes_over_one_that_is_gone(tmp_path: Path) -> None:
    with take_device(tmp_path, [ONE, TWO], holder="test", is_there=lambda d: d == TWO) as device:
        assert device == TWO

    with pytest.raises(DeviceError, match="None of GPU-1, MIG-2/1/0 is there any more"):
        with take_device(tmp_path, [ONE, TWO], holder="test", is_there=lambda _device: False):
            pass
    # Nothing is kept locked by the looking.
    with take_device(tmp_path, [ONE], holder="test", on_wait=lambda: pytest.fail("locked")):
        pass


def test_take_device__is_not_kept_by_programs_that_the_holder_started(tmp_path: Path) -> None:
    import subprocess

    with take_device(tmp_path, [ONE], holder="test"):
        program = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with take_device(tmp_path, [ONE], holder="test", on_wait=lambda: 1 / 0):
            pass
    finally:
        program.kill()
        program.wait()
