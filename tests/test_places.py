"""Places in stores, by fsspec's store in memory; S3 itself is in ``tests/end_to_end/test_s3.py``."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from upath import UPath

from ts_forecast import object_cache
from ts_forecast.errors import SettingsError, StorageError
from ts_forecast.files import write_whole
from ts_forecast.object_cache import cache_folder, fetched
from ts_forecast.places import Place, mark_of, matching, place, require_library
from ts_forecast.settings import load_settings


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[UPath]:
    """An empty folder of the store in memory."""
    folder = place(f"memory://{request.node.name}")
    assert isinstance(folder, UPath)
    yield folder
    fsspec.filesystem("memory").store.clear()


def test_place__path_and_url__are_told_apart() -> None:
    assert place("raw/x.csv") == Path("raw/x.csv")
    found = place("s3://bucket/history/x.csv")
    assert (found.name, found.suffix, str(found)) == ("x.csv", ".csv", "s3://bucket/history/x.csv")
    assert place(str(found)) == found
    assert (
        place("s3://bucket/history/") / "x.csv" == found == place("s3://bucket/") / "history/x.csv"
    )


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("ftp://host/x.csv", "no URL of a store.*kinds: s3"),
        ("s3:///x.csv", "no URL of a store"),
        ("s3://bucket//x.csv", "a folder in this URL has no name"),
        ("s3://key:geheim@bucket/x.csv", r"^s3://bucket/x\.csv: there is a login"),
    ],
)
def test_place__url_that_cannot_be_used__is_refused_without_its_login(
    text: str, pattern: str
) -> None:
    with pytest.raises(StorageError, match=pattern) as caught:
        place(text)

    assert "geheim" not in str(caught.value)


def test_load_settings__data_dir_is_a_url__is_kept_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", "s3://bucket/data")
    monkeypatch.setenv("MODEL_DIR", "models")

    settings = load_settings()

    assert str(settings.data_dir / "processed") == "s3://bucket/data/processed"
    assert settings.model_dir == tmp_path / "models"
    monkeypatch.setenv("DATA_DIR", "ftp://host/data")
    with pytest.raises(SettingsError, match="DATA_DIR: .*no URL of a store"):
        load_settings()


def test_require_library__not_installed__names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(protocol: str) -> None:
        raise ImportError(f"Install s3fs to access {protocol}")

    monkeypatch.setattr("upath.core.get_filesystem_class", absent)

    with pytest.raises(
        StorageError, match=r"s3://b/x: .*not installed \(s3fs\).*ts-forecast\[s3\]"
    ):
        require_library(place("s3://b/x"))


def test_matching__urls_and_globs_of_a_store__gives_files_alone(store: UPath) -> None:
    for name in ("b.csv", "a.csv", "deeper/c.csv", "a.txt"):
        (store / name).write_bytes(name.encode())

    def names(folder: Place, pattern: str) -> list[str]:
        return sorted(str(found.place) for found in matching(folder, pattern))

    assert names(Path("/nowhere"), f"{store}/*.csv") == [f"{store}/a.csv", f"{store}/b.csv"]
    assert names(store, "*.csv") == names(Path("/nowhere"), f"{store}/*.csv")
    assert names(store, "**/*.csv")[-1] == f"{store}/deeper/c.csv"
    assert names(store, "deeper") == []
    found = matching(store, "a.csv")[0]
    assert (found.place, found.mark) == (store / "a.csv", mark_of(store / "a.csv"))


def test_matching__local__is_as_strict_as_ever(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "folder.csv").mkdir()

    for pattern in ("*.csv", str(tmp_path / "*.csv")):
        found = matching(tmp_path, pattern)
        stat = (tmp_path / "a.csv").stat()
        assert [f.place for f in found] == [tmp_path / "a.csv"]
        assert found[0].mark == (1, stat.st_mtime_ns, stat.st_ino)


def test_fetched__object__is_fetched_again_when_it_has_changed(store: UPath) -> None:
    target = store / "x.csv"
    write_whole(target, lambda draft: draft.write_text("one"))
    first = fetched(target)
    inode = first.stat().st_ino
    again = fetched(target)
    write_whole(target, lambda draft: draft.write_text("two"))
    second = fetched(target)

    assert (again, again.stat().st_ino) == (first, inode)
    assert (first.read_text(), second.read_text()) == ("one", "two")
    assert first.suffix == ".csv" and cache_folder().stat().st_mode & 0o777 == 0o700
    target.unlink()
    assert mark_of(target) is None
    with pytest.raises(FileNotFoundError, match="x.csv"):
        fetched(target)


def test_cache__copies_that_nobody_used_for_days__are_forgotten(store: UPath) -> None:
    for name in ("old", "new"):
        (store / name).write_bytes(name.encode())
    old = fetched(store / "old")
    os.utime(old, (time.time() - 10 * 86_400, old.stat().st_mtime))

    new = fetched(store / "new")

    assert not old.exists() and new.exists()


def test_write_whole__writer_fails__leaves_no_object(store: UPath) -> None:
    def fail(draft: Path) -> None:
        draft.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(store / "x.parquet", fail)

    assert not (store / "x.parquet").exists()


def test_fetched__store_that_fails__names_the_url(
    store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "x.csv").write_bytes(b"x")

    def broken(*_: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(object_cache, "is_used", lambda kept: False)
    monkeypatch.setattr(type(store.fs), "get_file", broken)

    with pytest.raises(StorageError, match=r"memory://.*x\.csv cannot be .*Access Denied"):
        fetched(store / "x.csv")
