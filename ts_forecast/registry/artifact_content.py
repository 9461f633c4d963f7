"""What a file or folder of this host holds: hashes and sizes. Where it is put is ``artifacts``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ts_forecast.errors import ArtifactError
from ts_forecast.places import Place


@dataclass(frozen=True)
class StoredArtifact:
    """A stored file or folder.

    Attributes:
        path: where it lies; not always the target that was asked for, see ``ArtifactStore``.
        sha256: of a file, of its bytes; of a folder, of the lines ``<sha256>  <name>`` of its
            files, sorted by name.
        size_bytes: of all files together.
        files: SHA-256 of each file by its relative POSIX name; of a file, its own name.
    """

    path: Place
    sha256: str
    size_bytes: int
    files: Mapping[str, str]

    @property
    def local(self) -> Path:
        """``path`` where it is of this host, as that of ``verify`` always is."""
        if not isinstance(self.path, Path):
            raise TypeError(f"{self.path} lies in a store; verify brings it here.")
        return self.path

    @property
    def is_file(self) -> bool:
        """Whether it is a single file."""
        return list(self.files) == [self.path.name]


def describe(path: Path) -> StoredArtifact:
    """Hashes and size of a file or folder.

    Raises:
        ArtifactError: there is nothing at the path.
    """
    if path.is_file():
        sha256 = _file_hash(path)
        return StoredArtifact(path, sha256, path.stat().st_size, {path.name: sha256})
    if not path.is_dir():
        raise ArtifactError(
            f"There is nothing at {path}.",
            remedy="Restore it from a backup, or materialize it again with force.",
        )
    found = {item.relative_to(path).as_posix(): item for item in path.rglob("*") if item.is_file()}
    files = {name: _file_hash(found[name]) for name in sorted(found)}
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in files.items())
    size = sum(item.stat().st_size for item in found.values())
    return StoredArtifact(path, hashlib.sha256(listing.encode()).hexdigest(), size, files)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
