"""Quarters that several processes share out among themselves: held by one, done once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ts_forecast.quarter_desk import Desk
from ts_forecast.quarters import Quarter

FIRST, SECOND = Quarter.parse("2024-Q1"), Quarter.parse("2024-Q2")


@pytest.fixture
def desk(tmp_path: Path) -> Desk[str]:
    return Desk(tmp_path, (FIRST, SECOND))


def test_claimed__by_another__is_not_ours_until_it_ends(desk: Desk[str]) -> None:
    with desk.claimed(FIRST) as ours, desk.claimed(FIRST) as theirs, desk.claimed(SECOND) as other:
        assert (ours, theirs, other) == (True, False, True)
        assert desk.count_open() == 0
    assert desk.count_open() == 2


def test_claimed__holder_is_killed__is_free_again(desk: Desk[str]) -> None:
    script = f"""
import sys, time
from pathlib import Path
from ts_forecast.quarter_desk import Desk
from ts_forecast.quarters import Quarter
with Desk(Path({str(desk.folder)!r}), ()).claimed(Quarter.parse("2024-Q1")):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    assert not desk.is_open(FIRST)

    holder.kill()
    holder.wait()
    holder.stdout.close()

    assert desk.is_open(FIRST)


def test_store__what_became_of_it__is_read_by_all_and_it_is_closed(desk: Desk[str]) -> None:
    assert desk.stored(FIRST) is None
    desk.store(FIRST, "done")

    assert Desk[str](desk.folder, (FIRST, SECOND)).stored(FIRST) == ("done",)
    assert not desk.is_open(FIRST) and desk.is_open(SECOND)


def test_store__writer_dies_in_the_middle__nothing_is_there(desk: Desk[str]) -> None:
    desk.folder.joinpath(f"{FIRST.key}.done.{os.getpid()}").write_bytes(b"\x80\x05half")

    assert desk.stored(FIRST) is None
    assert desk.is_open(FIRST)


def test_fail__leaves_it_to_the_step(desk: Desk[str]) -> None:
    desk.fail(SECOND)

    assert not desk.is_open(SECOND)
    with desk.claimed(SECOND) as ours:
        assert ours and desk.stored(SECOND) is None


def test_take_note__is_the_newest_and_taken_once(desk: Desk[str]) -> None:
    desk.note(FIRST, "a third")
    desk.note(FIRST, "two thirds")

    assert desk.take_note(SECOND) is None
    assert desk.take_note(FIRST) == ("two thirds",)
    assert desk.take_note(FIRST) is None
