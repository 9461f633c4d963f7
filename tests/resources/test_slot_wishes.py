"""A free slot goes to the step that has most left to do."""

from __future__ import annotations

import os
from pathlib import Path

from resources.slot_wishes import take_back, wish


def other(folder: Path, seconds: float, age: float = 0.0) -> Path:
    path = folder / "1"
    path.write_text(repr(seconds))
    os.utime(path, times=(path.stat().st_atime, path.stat().st_mtime - age))
    return path


def test_wish__alone_and_first__is_granted(tmp_path: Path) -> None:
    assert wish(tmp_path / "wishes", 3.0)


def test_wish__somebody_has_more_to_do__is_not_granted(tmp_path: Path) -> None:
    other(tmp_path, 60.0)

    assert not wish(tmp_path, 59.0)
    assert wish(tmp_path, 61.0)


def test_wish__somebody_has_not_renewed_his__is_granted(tmp_path: Path) -> None:
    forgotten = other(tmp_path, 60.0, age=30.0)

    assert wish(tmp_path, 1.0)
    assert not forgotten.exists()


def test_take_back__leaves_nothing(tmp_path: Path) -> None:
    wish(tmp_path, 1.0)
    take_back(tmp_path)
    take_back(tmp_path)

    assert list(tmp_path.iterdir()) == []
