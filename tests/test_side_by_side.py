"""Quarters of one step in several processes: each done once, whatever becomes of those that help."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine

from resources.device_locks import lock_path, take_device, take_lock
from resources.devices import Device
from resources.free_slots import FreeSlots
from tests.quarter_tasks import done, work
from ts_forecast import side_by_side as room
from ts_forecast.errors import TrainingError
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.side_by_side import side_by_side

QUARTERS = list(quarter_range(Quarter.parse("2023-Q1"), Quarter.parse("2024-Q2")))
OURS, OTHER = (Device(f"cpu-{slot}", is_gpu=False, threads=1) for slot in range(2))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PATIENCE", 0.0)
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0.1)


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[FreeSlots]:
    lent = FreeSlots([OURS, OTHER], tmp_path / "locks", "a step")
    with take_device(lent.locks, [OURS], holder="the step"):
        yield lent
    lent.close()


def run(
    engine: Engine, settings: Settings, slots: FreeSlots | None, notes: Path, conduct: str = "well"
) -> tuple[list[str], list[object]]:
    said: list[object] = []
    with side_by_side(
        partial(work, notes, conduct),
        engine,
        settings,
        QUARTERS,
        slots=slots,
        tell=lambda quarter, progress: said.append((quarter.label, progress)),
    ) as result:
        return [result(quarter) for quarter in QUARTERS], said


def expected(settings: Settings) -> list[str]:
    return [f"{quarter.label} of {settings.home.name}" for quarter in QUARTERS]


def is_free(slots: FreeSlots) -> bool:
    descriptor = take_lock(lock_path(slots.locks, OTHER))
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def test_side_by_side__free_slot__last_quarters_are_done_there_and_each_once(
    engine: Engine, settings: Settings, slots: FreeSlots, tmp_path: Path
) -> None:
    outcomes, said = run(engine, settings, slots, tmp_path / "notes")

    assert outcomes == expected(settings)
    begun = done(tmp_path / "notes")
    assert sorted(label for label, _ in begun) == [quarter.label for quarter in QUARTERS]
    ours = [label for label, pid in begun if pid == os.getpid()]
    theirs = [label for label, pid in begun if pid != os.getpid()]
    assert ours == sorted(ours) and theirs == sorted(theirs, reverse=True)
    assert ours and theirs
    assert said and all(progress == f"halfway through {label}" for label, progress in said)
    assert is_free(slots)


@pytest.mark.parametrize("conduct", ["fails", "dies"])
def test_side_by_side__what_goes_wrong_beside__is_repeated_in_the_step(
    engine: Engine, settings: Settings, slots: FreeSlots, tmp_path: Path, conduct: str
) -> None:
    outcomes, _ = run(engine, settings, slots, tmp_path / "notes", conduct)

    assert outcomes == expected(settings)
    begun = done(tmp_path / "notes")
    assert {label for label, pid in begun if pid == os.getpid()} == {q.label for q in QUARTERS}
    assert {pid for _, pid in begun} > {os.getpid()}


def test_side_by_side__step_fails__ends_those_beside(
    engine: Engine, settings: Settings, slots: FreeSlots, tmp_path: Path
) -> None:
    begun = time.monotonic()
    with pytest.raises(TrainingError, match="own quarter"):
        run(engine, settings, slots, tmp_path / "notes", "stays")

    assert is_free(slots)
    assert time.monotonic() - begun < 60


def test_side_by_side__steps_wait_for_slots__asks_for_no_help(
    engine: Engine, settings: Settings, slots: FreeSlots, tmp_path: Path
) -> None:
    slots.are_wanted = lambda: True
    notes = tmp_path / "notes"
    # As if one had begun: the step need not wait for it.
    notes.write_text("2023-Q1 1\n")

    assert run(engine, settings, slots, notes, "slowly")[0] == expected(settings)

    assert {pid for _, pid in done(notes)[1:]} == {os.getpid()}


def test_side_by_side__no_slots__in_this_process(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.write_text("2023-Q1 1\n")

    assert run(engine, settings, None, notes)[0] == expected(settings)

    assert done(notes)[1:] == [(quarter.label, os.getpid()) for quarter in QUARTERS]
