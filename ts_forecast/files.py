"""Putting a file in its place in one step, on this host or in a store: there whole, or not there.

For every room that writes files. Folders and their hashes are ``registry.artifacts``.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from upath import UPath

from ts_forecast.places import Place, reaching


def write_whole(target: Place, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file beside ``target``, bring it to disk, then give it its name.

    A process that dies leaves a hidden draft at worst; two writers leave one complete file. The draft of
    an object is a temporary file: a store shows an object once all of it has arrived.

    Raises:
        StorageError: the store does not answer or refuses.
    """
    if isinstance(target, UPath):
        with tempfile.TemporaryDirectory(prefix="ts-forecast-") as folder:
            draft = Path(folder, target.name)
            write(draft)
            put(draft, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        write(draft)
        sync(draft)
        os.replace(draft, target)
        sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def put(source: Path, target: UPath) -> None:
    """Copy a file of this host into a store.

    Raises:
        StorageError: the store does not answer or refuses.
    """
    with reaching(target):
        target.fs.put_file(str(source), target.path)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
