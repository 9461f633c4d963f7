"""Copies of objects on this host, for libraries that need files; each is fetched once.

Kept under what tells one content from another, for as long as somebody uses them. Losing the folder costs
the time to fetch again, nothing else.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from upath import UPath

from ts_forecast.errors import StorageError
from ts_forecast.places import Place, mark_of, reaching

_UNUSED_SECONDS = 3 * 86_400


def fetched(where: Place) -> Path:
    """A file of this host with the content of a place: the file itself, or a copy of the object.

    Copies are kept for as long as the object's mark stands, so that unchanged objects are fetched once.

    Raises:
        FileNotFoundError: there is no such object.
    """
    if isinstance(where, Path):
        return where
    for _ in range(3):
        mark = mark_of(where)
        if mark is None:
            raise FileNotFoundError(f"{where}: there is no such object.")
        key = hashlib.sha256(f"{where}\n{mark}".encode()).hexdigest()
        kept = cache_folder() / f"{key}{where.suffix}"
        # An object that bears neither time nor tag may have changed under the same size.
        if any(mark[1:]) and is_used(kept):
            return kept
        download(where, kept)
        if mark_of(where) == mark:
            return kept
        # It was written meanwhile: this is the newer one.
        kept.unlink(missing_ok=True)
    raise StorageError(f"{where} changes faster than it can be read.")


def download(where: UPath, target: Path) -> None:
    """Bring an object to a path of this host, whole or not at all."""

    def get(draft: Path) -> None:
        with reaching(where):
            where.fs.get_file(where.path, str(draft))

    keep(target, get)


def keep(target: Path, make: Callable[[Path], None]) -> None:
    """Let ``make`` fill a path of the cache, whole or not at all; forgets what nobody used for days."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        make(draft)
        # What another process has put there meanwhile is the same.
        with suppress(OSError):
            os.replace(draft, target)
    finally:
        remove_tree(draft)
    _forget_unused(target.parent)


def cache_folder() -> Path:
    """Where copies of objects are kept: this user's folder among the temporary files (``TMPDIR``)."""
    folder = Path(tempfile.gettempdir(), f"ts-forecast-cache-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise StorageError(
            f"{folder} belongs to somebody else.", remedy="Remove it, or set TMPDIR."
        )
    return folder


def remove_tree(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_used(kept: Path) -> bool:
    """Whether a copy is there; notes that it was wanted."""
    try:
        os.utime(kept, ns=(time.time_ns(), kept.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _forget_unused(folder: Path) -> None:
    limit = time.time() - _UNUSED_SECONDS
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):
            if entry.stat().st_atime < limit:
                remove_tree(entry)
