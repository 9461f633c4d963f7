"""Slots lent to a step: locked while they are used, free when the process ends, however it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from resources.device_locks import lock_path, take_device, take_lock
from resources.devices import Device
from resources.free_slots import FreeSlots, offer, offered
from resources.slot_process import HeldSlot
from tests.resources import slot_tasks
from ts_forecast.cores import thread_environment

REPOSITORY = Path(__file__).parents[2]
DEVICES = [Device(f"cpu-{slot}", is_gpu=False, threads=slot + 1) for slot in range(2)]


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[FreeSlots]:
    (tmp_path / "locks").mkdir()
    lent = FreeSlots(DEVICES, tmp_path / "locks", "a search")
    yield lent
    lent.close()


def is_free(slots: FreeSlots, device: Device) -> bool:
    descriptor = take_lock(lock_path(slots.locks, device))
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def appears(path: Path, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return path.exists()


def test_start__slots_are_taken_until_their_processes_end(slots: FreeSlots, tmp_path: Path) -> None:
    with take_device(slots.locks, DEVICES[:1], holder="we"):
        helper = slots.start(slot_tasks.note_and_wait, tmp_path / "note", tmp_path / "go")
        assert helper is not None
        assert slots.start(slot_tasks.note_and_wait, tmp_path, tmp_path) is None, "none is free"
        assert appears(tmp_path / "note")
        assert (tmp_path / "note").read_text() == "cpu-1 threads 2"
        assert not is_free(slots, DEVICES[1])
        holder = lock_path(slots.locks, DEVICES[1]).read_text()
        assert holder.endswith(" a search\n")
        pid = int(holder.partition(" ")[0])
        assert psutil.pid_exists(pid) and pid != os.getpid()

        (tmp_path / "go").touch()

        assert helper.wait() == 0
        assert is_free(slots, DEVICES[1])


def test_interrupt__process_that_waits__is_interrupted(slots: FreeSlots, tmp_path: Path) -> None:
    helper = slots.start(slot_tasks.note_and_wait, tmp_path / "note", tmp_path / "never")
    assert helper is not None and appears(tmp_path / "note")

    helper.interrupt()

    assert helper.wait() == 130
    helper.stop()
    assert is_free(slots, DEVICES[0])


def test_start__parent_is_killed__the_process_ends_and_the_slot_is_free(
    slots: FreeSlots, tmp_path: Path
) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from resources.devices import Device
from resources.free_slots import FreeSlots
from tests.resources import slot_tasks
from ts_forecast.cores import thread_environment
slots = FreeSlots([Device("cpu-0", is_gpu=False, threads=1)], Path({str(slots.locks)!r}), "it")
slots.start(slot_tasks.note_and_wait, Path({str(tmp_path / "note")!r}), Path("/nowhere")).wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY)
    assert appears(tmp_path / "note")
    assert not is_free(slots, DEVICES[0])

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    end = time.monotonic() + 5
    while not is_free(slots, DEVICES[0]) and time.monotonic() < end:
        time.sleep(0.05)
    assert is_free(slots, DEVICES[0])


def test_start__another_step_has_more_to_do__lends_none(slots: FreeSlots, tmp_path: Path) -> None:
    wishes = slots.locks / "wishes"
    wishes.mkdir()
    (wishes / "1").write_text("60.0")

    assert slots.start(slot_tasks.note_and_wait, tmp_path, tmp_path, left=59.0) is None


def test_start__steps_wait_for_slots__lends_none(slots: FreeSlots, tmp_path: Path) -> None:
    slots.are_wanted = lambda: True

    assert slots.start(slot_tasks.note_and_wait, tmp_path, tmp_path) is None


def test_split__lends_the_threads_of_the_own_slot_and_keeps_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in thread_environment(1):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    own = Device("cpu-0", is_gpu=False, threads=3)
    lent = FreeSlots([own], tmp_path / "locks", "a step", are_wanted=lambda: True, own=own)
    with take_device(lent.locks, [own], holder="we"), offer(lent):
        assert lent.start(slot_tasks.note_and_wait, tmp_path / "0", tmp_path / "go") is None

        lent.split()
        lent.split()

        assert os.environ["OMP_NUM_THREADS"] == "1"
        helpers = [
            lent.start(slot_tasks.note_and_wait, tmp_path / name, tmp_path / "go") for name in "123"
        ]
        assert helpers[2] is None, "three threads, of which one is ours"
        assert appears(tmp_path / "1") and appears(tmp_path / "2")
        assert (tmp_path / "1").read_text() == "cpu-0.1 threads 1"
        assert (tmp_path / "2").read_text() == "cpu-0.2 threads 1"
        (tmp_path / "go").touch()
        assert [helper.wait() for helper in helpers[:2] if helper is not None] == [0, 0]

        lent.rejoin()

        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert lent.start(slot_tasks.note_and_wait, tmp_path / "4", tmp_path / "go") is None


def test_split__of_a_gpu__changes_nothing(tmp_path: Path) -> None:
    own = Device("GPU-1", is_gpu=True, threads=3)
    lent = FreeSlots([own], tmp_path / "locks", "a step", own=own)
    with take_device(lent.locks, [own], holder="we"), offer(lent):
        lent.split()
        assert lent.start(slot_tasks.note_and_wait, tmp_path / "0", tmp_path / "go") is None


def test_start__somebody_was_quicker__the_process_ends_without_a_word(
    slots: FreeSlots, tmp_path: Path
) -> None:
    helper = slots.start(slot_tasks.note_and_wait, tmp_path / "note", tmp_path / "never")
    assert helper is not None
    with take_device(slots.locks, DEVICES[:1], holder="a step"):
        assert helper.wait() == 0
    assert not (tmp_path / "note").exists()


def test_stop__process_that_does_not_end__is_killed(slots: FreeSlots, tmp_path: Path) -> None:
    helper = slots.start(slot_tasks.note_and_stay, tmp_path / "note")
    assert helper is not None and appears(tmp_path / "note")

    helper.interrupt()
    helper.stop()

    assert helper.wait() == -signal.SIGKILL
    assert is_free(slots, DEVICES[0])


def test_close__ends_what_is_left(slots: FreeSlots, tmp_path: Path) -> None:
    with offer(slots):
        helper = slots.start(slot_tasks.note_and_stay, tmp_path / "note")
        assert helper is not None and appears(tmp_path / "note")

    assert is_free(slots, DEVICES[0])
    assert helper.has_ended()


def test_renew__somebody_waits__has_the_slot(slots: FreeSlots) -> None:
    descriptor = take_lock(lock_path(slots.locks, DEVICES[0]))
    assert descriptor is not None
    turn = HeldSlot("cpu-0", descriptor)
    assert turn.renew(), "nobody waits"
    has_it, done = threading.Event(), threading.Event()

    def wait_for_it() -> None:
        with take_device(slots.locks, DEVICES[:1], holder="a step"):
            has_it.set()
            done.wait(30)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    time.sleep(0.2)

    assert not has_it.is_set()
    assert not turn.renew()
    assert has_it.wait(5)
    done.set()
    waiting.join()
    os.close(descriptor)


def test_offered__outside_of_a_step__is_nothing(slots: FreeSlots) -> None:
    assert offered() is None
    with offer(slots):
        assert offered() is slots
    assert offered() is None
