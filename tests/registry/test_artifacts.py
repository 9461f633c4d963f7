"""Files that are whole or absent, never changed, and checked against their hash."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ts_forecast.db.engine import transaction
from ts_forecast.errors import ArtifactError
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry import artifacts
from ts_forecast.registry.artifacts import (
    ArtifactStore,
    describe,
    record_artifact,
    verify,
    verify_artifact,
)
from ts_forecast.settings import Settings
from ts_forecast.tables.registry import Artifact
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import RunKey, tracked_run

TARGET = Path("staging/demo/net/2024-01-01/abc")

WRITER = """
import sys, time
from pathlib import Path
from ts_forecast.registry.artifacts import ArtifactStore
from ts_forecast.settings import Settings

def write(folder):
    (folder / "weights").write_bytes(b"x" * 1000)
    print("half", flush=True)
    time.sleep(600)

settings = Settings(_env_file=None, model_dir=sys.argv[1])
ArtifactStore(settings).write_directory(Path("staging/demo/net/2024-01-01/abc"), write)
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Settings(_env_file=None, model_dir=tmp_path / "models"))


def fill(folder: Path, text: str = "weights") -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "weights.bin").write_text(text)
    (folder / "configuration.json").write_text("{}")


def drafts(store: ArtifactStore) -> list[Path]:
    return [path for path in store.root.rglob(".draft-*")]


def test_write_directory__publishes_a_complete_folder(store: ArtifactStore) -> None:
    stored = store.write_directory(TARGET, fill)

    assert stored.path == store.root / TARGET
    assert sorted(stored.files) == ["configuration.json", "inner/weights.bin"]
    assert stored.size_bytes == 9
    listing = "".join(
        f"{hashlib.sha256(text).hexdigest()}  {name}\n"
        for name, text in (("configuration.json", b"{}"), ("inner/weights.bin", b"weights"))
    )
    assert stored.sha256 == hashlib.sha256(listing.encode()).hexdigest()
    assert verify(stored.path, stored.sha256) == stored
    assert drafts(store) == []


def test_write_directory__same_content_again_changes_nothing(store: ArtifactStore) -> None:
    first = store.write_directory(TARGET, fill)
    inode = first.path.stat().st_ino

    assert store.write_directory(TARGET, fill) == first
    assert first.path.stat().st_ino == inode
    assert drafts(store) == []


def test_write_directory__other_content_is_published_beside_it(store: ArtifactStore) -> None:
    first = store.write_directory(TARGET, fill)

    second = store.write_directory(TARGET, lambda folder: fill(folder, "others"))

    assert second.path.name == f"abc-{second.sha256[:12]}"
    verify(first.path, first.sha256)
    verify(second.path, second.sha256)
    assert store.write_directory(TARGET, lambda folder: fill(folder, "others")) == second


def test_write_directory__damaged_copy_beside_is_an_error(store: ArtifactStore) -> None:
    store.write_directory(TARGET, fill)
    second = store.write_directory(TARGET, lambda folder: fill(folder, "others"))
    (second.path / "configuration.json").write_text("{ }")

    with pytest.raises(ArtifactError, match=f"{second.path} is damaged.*{second.sha256}"):
        store.write_directory(TARGET, lambda folder: fill(folder, "others"))


def test_write_directory__failed_writer_leaves_nothing(store: ArtifactStore) -> None:
    def write(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write_directory(TARGET, write)

    assert not (store.root / TARGET).exists()
    assert drafts(store) == []


def test_write_directory__nothing_written_or_outside_of_the_root(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="Nothing was written"):
        store.write_directory(TARGET, lambda folder: None)
    for target in (Path("../stray"), Path("/tmp/stray"), Path(".")):
        with pytest.raises(ArtifactError, match="no path below"):
            store.write_directory(target, fill)


def test_write_directory__many_writers_leave_one_folder(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: store.write_directory(TARGET, fill), range(16)))

    assert len({item.path for item in stored}) == 1
    assert [path.name for path in stored[0].path.parent.iterdir()] == ["abc"]


def test_write_directory__killed_writer_is_cleaned_up_by_the_next(store: ArtifactStore) -> None:
    root = Path(artifacts.__file__).parents[2]
    command = [sys.executable, "-c", WRITER, str(store.root)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert writer.stdout is not None and writer.stdout.readline() == "half\n"
    folder = (store.root / TARGET).parent
    # While it lives, its draft is left alone.
    assert artifacts.remove_drafts(folder) == []
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert len(drafts(store)) == 1 and not (store.root / TARGET).exists()

    stored = store.write_directory(TARGET, fill)

    assert drafts(store) == []
    verify(stored.path, stored.sha256)


def test_write_file__publishes_once(store: ArtifactStore) -> None:
    target = Path("reports/scores.parquet")
    first = store.write_file(target, lambda path: path.write_text("one") and None)

    assert store.write_file(target, lambda path: path.write_text("one") and None) == first
    other = store.write_file(target, lambda path: path.write_text("two") and None)

    assert first.path.read_text() == "one"
    assert other.path.name == f"scores-{other.sha256[:12]}.parquet"
    assert drafts(store) == []


def test_verify__names_the_file_and_both_hashes(store: ArtifactStore) -> None:
    stored = store.write_directory(TARGET, fill)
    weights = stored.path / "inner" / "weights.bin"
    weights.write_text("tampered")
    now = describe(stored.path).files["inner/weights.bin"]

    with pytest.raises(ArtifactError) as caught:
        verify(stored.path, stored.sha256, stored.files)

    for part in (str(weights), now, stored.files["inner/weights.bin"]):
        assert part in str(caught.value)


def test_verify__missing_and_strange_files(store: ArtifactStore) -> None:
    stored = store.write_directory(TARGET, fill)
    (stored.path / "inner" / "weights.bin").rename(stored.path / "aside")

    with pytest.raises(ArtifactError, match="aside is not what was stored.*a stranger"):
        verify(stored.path, stored.sha256, stored.files)
    (stored.path / "aside").unlink()
    with pytest.raises(ArtifactError, match=r"weights\.bin is not what was stored.*is missing"):
        verify(stored.path, stored.sha256, stored.files)
    with pytest.raises(ArtifactError, match="There is nothing at"):
        verify(stored.path / "gone", stored.sha256)


def test_record_artifact__row_can_be_verified(engine: Engine, store: ArtifactStore) -> None:
    stored = store.write_directory(TARGET, fill)
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2022-01-01",
        "models": ["SeasonalNaive"],
    }
    with transaction(engine) as session:
        experiment_id = ensure_experiment(session, parse_pipeline(content, origin="test"))
    key = RunKey(experiment_id, "train", "demo", "f" * 64, Quarter(2024, 1))
    with tracked_run(engine, key) as run, transaction(engine) as session:
        artifact_id = record_artifact(session, run.run_id, "model", "model", stored)
        run.complete(session)

    with transaction(engine) as session:
        row = session.get_one(Artifact, artifact_id)
        assert row.storage_path == stored.path.as_uri()
        assert verify_artifact(row) == stored
        (stored.path / "configuration.json").write_text("[]")
        with pytest.raises(ArtifactError, match=r"configuration\.json is not what was stored"):
            verify_artifact(row)
