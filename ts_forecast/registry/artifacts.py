"""Stored files: written whole or not at all, known by their content, never changed.

``ArtifactStore`` publishes folders (a fitted model) and single files (a report) under the
deployment's folders; ``record_artifact`` writes the row. What they contain is their writers'
business. What a killed writer leaves is a draft that no row names; the next writer in the same
folder removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from sqlalchemy.orm import Session
from upath import UPath

from ts_forecast.errors import ArtifactError
from ts_forecast.object_cache import remove_tree
from ts_forecast.places import Place, place, storage_type
from ts_forecast.registry.artifact_content import StoredArtifact, describe
from ts_forecast.registry.object_artifacts import (
    SUFFIX_LENGTH,
    fetched_artifact,
    publish_objects,
)
from ts_forecast.settings import Settings
from ts_forecast.tables.registry import Artifact

# A draft of another host cannot be asked whether its writer lives.
_FOREIGN_DRAFT_SECONDS = 7 * 86_400
_DRAFT = re.compile(r"^\.draft-(?P<host>[^.]*)\.(?P<pid>\d+)\.(?P<born>\d+)\.[0-9a-f]{8}$")


class ArtifactStore:
    """Folders and files under one root, published atomically.

    Invariants:
        - a path that was returned is complete, on disk, and never changes afterwards
        - writing the same content to the same target twice gives the same path
        - other content for a taken target is published beside it, as ``<target>-<sha256[:12]>``:
          what a row refers to is never replaced (a forced repetition on a GPU differs in its last
          bits; a damaged folder is healed by computing it again); in an object store all content is
          published under such a name

    Args:
        settings: gives the default root, ``model_dir``.
        root: another folder of the deployment, ``settings.output_dir`` say.
    """

    def __init__(self, settings: Settings, *, root: Place | None = None) -> None:
        self.root = root if root is not None else settings.model_dir

    def write_directory(self, target: Path, write: Callable[[Path], None]) -> StoredArtifact:
        """Publish what ``write`` puts into the empty folder that it is given.

        Args:
            target: relative to the root.

        Raises:
            ArtifactError: the target is no path below the root, or nothing was written.
        """

        def fill(draft: Path) -> None:
            draft.mkdir()
            write(draft)

        return self._publish(target, fill)

    def write_file(self, target: Path, write: Callable[[Path], None]) -> StoredArtifact:
        """Publish the file that ``write`` makes at the path that it is given.

        Args:
            target: relative to the root.

        Raises:
            ArtifactError: the target is no path below the root, or nothing was written.
        """
        return self._publish(target, write)

    def _publish(self, target: Path, fill: Callable[[Path], None]) -> StoredArtifact:
        place = self._resolve(target)
        if isinstance(place, UPath):
            return publish_objects(place, fill)
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_drafts(place.parent)
        draft = place.parent / _draft_name()
        try:
            fill(draft)
            described = describe(draft)
            if not described.files:
                raise ArtifactError(f"Nothing was written for {place}.")
            _sync_tree(draft)
            beside = place.with_name(
                f"{place.stem}-{described.sha256[:SUFFIX_LENGTH]}{place.suffix}"
            )
            for candidate in (place, beside):
                if _moved(draft, candidate) or _holds(candidate, described.sha256):
                    return describe(candidate)
        finally:
            _remove(draft)
        raise ArtifactError(
            f"{beside} is damaged: it should have the SHA-256 {described.sha256}, it has "
            f"{describe(beside).sha256}.",
            remedy="Move it away and materialize again.",
        )

    def _resolve(self, target: Path) -> Place:
        normal = Path(os.path.normpath(target))
        if normal.is_absolute() or normal.parts[:1] in ((), ("..",)):
            raise ArtifactError(
                f"{target} is no path below {self.root}.", remedy="Give a relative path."
            )
        return self.root / normal.as_posix()


def verify(path: Place, sha256: str, files: Mapping[str, str] | None = None) -> StoredArtifact:
    """Refuse a file or folder that is not what was stored.

    Args:
        files: the recorded hash of each file, so that the error can name the one that differs.

    Returns:
        What was found; its ``path`` is of this host: of an artifact in a store, a copy.

    Raises:
        ArtifactError: it is missing, or its hash differs; names the file and both hashes.
        StorageError: the store does not answer.
    """
    local = fetched_artifact(path, sha256) if isinstance(path, UPath) else path
    found = describe(local)
    if found.sha256 == sha256:
        return found
    if isinstance(path, UPath):
        remove_tree(local)
    where, is_hash, should_be = path, found.sha256, sha256
    for name in sorted({*(files or {}), *found.files} if files else ()):
        if found.files.get(name) != (files or {}).get(name):
            where = path if found.is_file else path / name
            is_hash = found.files.get(name, "none, it is missing")
            should_be = (files or {}).get(name, "none, it is a stranger")
            break
    raise ArtifactError(
        f"{where} is not what was stored: its SHA-256 is {is_hash}, on record is {should_be}.",
        remedy="Restore it from a backup, or materialize it again with force.",
    )


def record_artifact(
    session: Session, run_id: int, name: str, kind: str, stored: StoredArtifact
) -> int:
    """Write the row of a stored file or folder; its id.

    Args:
        kind: a value of ``artifacts.artifact_type``, e.g. ``model`` or ``report``.
    """
    row = Artifact(
        run_id=run_id,
        artifact_name=name,
        artifact_type=kind,
        artifact_path=str(stored.path),
        storage_type=storage_type(stored.path),
        storage_path=stored.path.as_uri(),
        file_size_bytes=stored.size_bytes,
        file_hash=stored.sha256,
        file_format=stored.path.suffix.lstrip(".") or None if stored.is_file else None,
        metadata_={"files": dict(stored.files)},
    )
    session.add(row)
    session.flush()
    return row.artifact_id


def verify_artifact(artifact: Artifact) -> StoredArtifact:
    """Refuse the file of a row if it is not what was stored.

    Raises:
        ArtifactError: see ``verify``.
    """
    files = (artifact.metadata_ or {}).get("files")
    return verify(place(artifact.artifact_path), str(artifact.file_hash), files)


def remove_drafts(folder: Path) -> list[Path]:
    """Remove the drafts that dead writers left in a folder; those that were removed."""
    removed = []
    for draft in folder.glob(".draft-*"):
        if (match := _DRAFT.match(draft.name)) and _is_abandoned(draft, match):
            _remove(draft)
            removed.append(draft)
    return removed


def _is_abandoned(draft: Path, match: re.Match[str]) -> bool:
    if match["host"] != _host():
        try:
            return time.time() - draft.stat().st_mtime > _FOREIGN_DRAFT_SECONDS
        except FileNotFoundError:
            return False
    try:
        # A number is given to another process some day: its birth tells them apart.
        return int(psutil.Process(int(match["pid"])).create_time()) != int(match["born"])
    except psutil.NoSuchProcess:
        return True


def _draft_name() -> str:
    born = int(psutil.Process().create_time())
    return f".draft-{_host()}.{os.getpid()}.{born}.{secrets.token_hex(4)}"


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _moved(draft: Path, place: Path) -> bool:
    """Give the draft its name, unless that is taken; one of two writers wins."""
    try:
        if draft.is_dir():
            # rename(2) refuses a folder that holds something.
            os.replace(draft, place)
        else:
            # rename(2) would replace a file; a hard link refuses.
            os.link(draft, place)
    except OSError:
        if not place.exists():
            raise
        return False
    _sync(place.parent)
    return True


def _holds(place: Path, sha256: str) -> bool:
    return describe(place).sha256 == sha256


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        with suppress(OSError):
            draft.unlink()


def _sync_tree(path: Path) -> None:
    for item in path.rglob("*") if path.is_dir() else ():
        _sync(item)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
