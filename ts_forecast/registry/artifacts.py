"""Stored files: written whole or not at all, known by their hash.

Folders of models and single files under the deployment's folders. What they contain is their
writers' business.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from ts_forecast.errors import ArtifactError
from ts_forecast.tables.registry import Artifact

_CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredArtifact:
    """A stored file or folder.

    Attributes:
        sha256: of a file, of its bytes; of a folder, of its sorted relative names and file hashes.
    """

    path: Path
    sha256: str
    size_bytes: int


def store_folder(target: Path, write: Callable[[Path], None]) -> StoredArtifact:
    """Let ``write`` fill a folder beside ``target``, then put it in place in one step.

    Everything is on disk before the name appears. A folder that stands already is moved aside and
    removed only then: two writers of one target leave one complete folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    draft.mkdir()
    try:
        write(draft)
        for path in sorted(draft.rglob("*")):
            if path.is_file():
                _sync(path)
        _sync(draft)
        stored = describe(draft)
        _replace_folder(draft, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return StoredArtifact(target, stored.sha256, stored.size_bytes)


def store_file(target: Path, write: Callable[[Path], None]) -> StoredArtifact:
    """Let ``write`` make a file beside ``target``, then put it in place in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        write(draft)
        _sync(draft)
        stored = describe(draft)
        os.replace(draft, target)
        _sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)
    return StoredArtifact(target, stored.sha256, stored.size_bytes)


def describe(path: Path) -> StoredArtifact:
    """Hash and size of a file or folder.

    Raises:
        ArtifactError: there is nothing at the path.
    """
    if path.is_file():
        return StoredArtifact(path, _file_hash(path), path.stat().st_size)
    if not path.is_dir():
        raise ArtifactError(
            f"There is nothing at {path}.", remedy="Materialize it again with force."
        )
    digest, size = hashlib.sha256(), 0
    for item in sorted(path.rglob("*")):
        if item.is_file():
            digest.update(f"{item.relative_to(path).as_posix()}\0{_file_hash(item)}\n".encode())
            size += item.stat().st_size
    return StoredArtifact(path, digest.hexdigest(), size)


def verify(path: Path, sha256: str) -> None:
    """Refuse a file or folder that is not what was stored.

    Raises:
        ArtifactError: it is missing, or its hash differs.
    """
    found = describe(path).sha256
    if found != sha256:
        raise ArtifactError(
            f"{path} is not what was stored: its SHA-256 is {found}, on record is {sha256}.",
            remedy="Restore it from a backup, or materialize it again with force.",
        )


def record_artifact(
    session: Session, run_id: int, *, name: str, kind: str, stored: StoredArtifact
) -> int:
    """The row of a stored file or folder; its id."""
    row = Artifact(
        run_id=run_id,
        artifact_name=name,
        artifact_type=kind,
        artifact_path=str(stored.path),
        storage_path=stored.path.as_uri(),
        file_size_bytes=stored.size_bytes,
        file_hash=stored.sha256,
        file_format=stored.path.suffix.lstrip(".") or None,
    )
    session.add(row)
    session.flush()
    return row.artifact_id


def _replace_folder(draft: Path, target: Path) -> None:
    if target.exists():
        aside = target.with_name(f".{target.name}.old.{secrets.token_hex(4)}")
        os.replace(target, aside)
        os.replace(draft, target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(draft, target)


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
