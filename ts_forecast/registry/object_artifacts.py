"""Artifacts in an object store: put there by content, and brought back as files of this host.

A store shows an object whole or not at all, but knows no folders: those of a folder arrive one by one.
So the content's hash is in every name. Two writers of one content put the same objects; a writer that
dies leaves objects that no row names, and the next one completes them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from upath import UPath

from ts_forecast.errors import ArtifactError
from ts_forecast.files import put
from ts_forecast.object_cache import cache_folder, is_used, keep, remove_tree
from ts_forecast.places import reaching
from ts_forecast.registry.artifact_content import StoredArtifact, describe

SUFFIX_LENGTH = 12


def publish_objects(target: UPath, fill: Callable[[Path], None]) -> StoredArtifact:
    """Put what ``fill`` makes at ``<target>-<sha256[:12]>``.

    Raises:
        ArtifactError: nothing was written.
        StorageError: the store does not answer or refuses.
    """
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".draft-") as folder:
        draft = Path(folder, target.name)
        fill(draft)
        described = describe(draft)
        if not described.files:
            raise ArtifactError(f"Nothing was written for {target}.")
        mark = described.sha256[:SUFFIX_LENGTH]
        where = target.with_name(f"{target.stem}-{mark}{target.suffix}")
        if described.is_file:
            put(draft, where)
            described = replace(described, files={where.name: described.sha256})
        else:
            for name in described.files:
                put(draft / name, where / name)
        # Whoever forecasts with it on this host needs not fetch it.
        keep(cache_folder() / described.sha256, lambda kept: os.replace(draft, kept))
    return replace(described, path=where)


def fetched_artifact(where: UPath, sha256: str) -> Path:
    """A file or folder of this host with the content of an artifact, by its hash; not verified if new.

    Raises:
        ArtifactError: there is nothing in that place.
        StorageError: the store does not answer.
    """
    kept = cache_folder() / sha256
    if is_used(kept) and describe(kept).sha256 == sha256:
        return kept
    remove_tree(kept)
    with reaching(where):
        names = where.fs.find(where.path)
    if not names:
        raise ArtifactError(
            f"There is nothing at {where}.",
            remedy="Restore it from a backup, or materialize it again with force.",
        )

    def get(draft: Path) -> None:
        for name in names:
            target = draft / name[len(where.path) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with reaching(where):
                where.fs.get_file(name, str(target))

    keep(kept, get)
    return kept
