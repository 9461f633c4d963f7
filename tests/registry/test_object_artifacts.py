"""Artifacts in a store: named by content, whole once they are named, brought back by their hash."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from upath import UPath

from ts_forecast.errors import ArtifactError
from ts_forecast.object_cache import cache_folder
from ts_forecast.places import place
from ts_forecast.registry.artifact_content import describe
from ts_forecast.registry.artifacts import ArtifactStore, verify
from ts_forecast.settings import Settings

TARGET = Path("staging/demo/net/2024-01-01/abc")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield ArtifactStore(Settings(_env_file=None), root=place("memory://models"))
    fsspec.filesystem("memory").store.clear()


def fill(folder: Path, text: str = "weights") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "inner").mkdir()
    (folder / "inner" / "weights.bin").write_text(text)
    (folder / "configuration.json").write_text("{}")


def forget() -> None:
    """What another host starts with."""
    for entry in cache_folder().iterdir():
        entry.rename(entry.with_name(f"elsewhere-{entry.name}"))


def test_write_directory__folder__is_named_by_its_content(
    store: ArtifactStore, tmp_path: Path
) -> None:
    fill(tmp_path / "local")
    local = describe(tmp_path / "local")

    stored = store.write_directory(TARGET, fill)
    other = store.write_directory(TARGET, lambda folder: fill(folder, "others"))

    assert str(stored.path) == f"memory://models/{TARGET}-{local.sha256[:12]}"
    assert (stored.sha256, stored.size_bytes, stored.files) == (local.sha256, 9, local.files)
    assert store.write_directory(TARGET, fill) == stored != other
    forget()
    for artifact, text in ((stored, "weights"), (other, "others")):
        found = verify(artifact.path, artifact.sha256)
        assert found.files == artifact.files
        assert (found.local / "inner" / "weights.bin").read_text() == text
    assert not [entry for entry in cache_folder().iterdir() if entry.name.startswith(".")]


def test_write_file__file__keeps_its_ending(store: ArtifactStore) -> None:
    stored = store.write_file(Path("reports/report.html"), lambda draft: draft.write_text("page"))

    assert stored.path.name == f"report-{stored.sha256[:12]}.html"
    assert stored.is_file
    forget()
    assert verify(stored.path, stored.sha256, stored.files).local.read_text() == "page"


def test_verify__copy_of_this_host_was_damaged__is_fetched_again(store: ArtifactStore) -> None:
    stored = store.write_directory(TARGET, fill)
    copy = verify(stored.path, stored.sha256).local
    (copy / "configuration.json").write_text("{ }")

    assert (verify(stored.path, stored.sha256).local / "configuration.json").read_text() == "{}"


def test_verify__object_was_damaged_or_lost__is_refused_by_its_url(store: ArtifactStore) -> None:
    stored = store.write_directory(TARGET, fill)
    assert isinstance(stored.path, UPath)
    damaged = stored.path / "inner" / "weights.bin"
    damaged.write_bytes(b"Weights")
    forget()

    with pytest.raises(ArtifactError, match=f"^{damaged} is not what was stored"):
        verify(stored.path, stored.sha256, stored.files)
    # The damaged copy is not kept: mending the object is enough.
    damaged.write_bytes(b"weights")
    assert verify(stored.path, stored.sha256, stored.files).sha256 == stored.sha256
    fsspec.filesystem("memory").store.clear()
    forget()
    with pytest.raises(ArtifactError, match=f"^There is nothing at {stored.path}"):
        verify(stored.path, stored.sha256)


def test_write_directory__writer_or_store_fails__nothing_is_named(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="Nothing was written"):
        store.write_directory(TARGET, lambda folder: None)
    with pytest.raises(ArtifactError, match="no path below"):
        store.write_directory(Path("../elsewhere"), fill)
    kind = type(place("memory://models").fs)
    whole = kind.put_file

    def broken(self: object, source: str, target: str) -> None:
        if "weights" in target:
            raise ConnectionError("gone")
        whole(self, source, target)

    with monkeypatch.context() as patch, pytest.raises(Exception, match="gone"):
        patch.setattr(kind, "put_file", broken)
        store.write_directory(TARGET, fill)

    # The next writer completes what the first has left.
    stored = store.write_directory(TARGET, fill)
    forget()
    assert verify(stored.path, stored.sha256).sha256 == stored.sha256
