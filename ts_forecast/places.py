"""Where files lie: in a folder of this host, or in an object store, by its URL.

Naming a place, finding files there, and telling one content from another without reading it. Bringing
objects to this host is ``object_cache``, writing files whole ``files``.

Credentials are the store's own matter (``AWS_ACCESS_KEY_ID``, an instance's role, a file of the cloud's
client): none stands in a URL, so none gets into tables or logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from upath import UPath

from ts_forecast.errors import StorageError

Place = Path | UPath
Mark = tuple[int, ...]

# Library, its extra of this package if there is one, and artifacts.storage_type.
_STORES = {
    "s3": ("s3fs", "s3", "s3"),
    "s3a": ("s3fs", "s3", "s3"),
    "gs": ("gcsfs", None, "gcs"),
    "gcs": ("gcsfs", None, "gcs"),
    "az": ("adlfs", None, "azure"),
    "abfs": ("adlfs", None, "azure"),
    "abfss": ("adlfs", None, "azure"),
    # Of one process: for tests.
    "memory": ("fsspec", None, None),
}
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_TAGS = ("ETag", "etag", "md5Hash")


@dataclass(frozen=True)
class Found:
    """A file, and what changes whenever it is written.

    Attributes:
        mark: size, modification time in nanoseconds (0: unknown), and the inode, or a number made of
            the object's entity tag (0: it has none).
    """

    place: Place
    mark: Mark


def is_url(text: str) -> bool:
    """Whether it names a place in a store, not on this host."""
    return "://" in text


def place(text: str | Place) -> Place:
    """The place that a path or URL names; nothing is looked up there.

    Raises:
        StorageError: a URL of a kind that is not supported, or with a password in it.
    """
    if not isinstance(text, str) or not is_url(text):
        return Path(text) if isinstance(text, str) else text
    parts = urlsplit(text)
    if parts.scheme not in _STORES or not parts.netloc:
        raise StorageError(
            f"{_without_login(text)}: this is no URL of a store that can be used.",
            remedy=f"Write it as s3://bucket/folder/…; kinds: {', '.join(_STORES)}.",
        )
    # Azure writes container@account.
    if "@" in parts.netloc and (":" in parts.netloc or not parts.scheme.startswith(("az", "abf"))):
        raise StorageError(
            f"{_without_login(text)}: there is a login in this URL.",
            remedy="Take it out: tables hold URLs. See docs/configuration.md, credentials.",
        )
    if "//" in parts.path:
        raise StorageError(
            f"{text}: a folder in this URL has no name.",
            remedy="Write one slash between two names.",
        )
    # What was listed a moment ago may have changed.
    return UPath(text.rstrip("/"), use_listings_cache=False)


def storage_type(where: Place) -> str:
    """The store as ``artifacts.storage_type`` names it."""
    return "local" if isinstance(where, Path) else _STORES[where.protocol][2] or where.protocol


def require_library(where: Place) -> None:
    """Refuse a place that this installation cannot read.

    Raises:
        StorageError: the store's library is not installed; says which extra installs it.
    """
    if isinstance(where, UPath):
        with reaching(where):
            _ = where.fs


@contextmanager
def reaching(where: Place) -> Iterator[None]:
    """Turn what a store's client raises into one error that names the URL.

    ``FileNotFoundError`` passes through: it is an answer. So does everything of local files.
    """
    if isinstance(where, Path):
        yield
        return
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except ImportError as error:
        library, extra, _ = _STORES[where.protocol]
        wanted = f"'ts-forecast[{extra}]'" if extra else library
        raise StorageError(
            f"{where}: the library for {where.protocol}:// is not installed ({library}).",
            remedy=f"Run `pip install {wanted}`.",
        ) from error
    # Each store's client has errors of its own.
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise StorageError(
            f"{where} cannot be reached or refused: {type(error).__name__}: {reason}.",
            remedy="Check the URL, the credentials and the endpoint (docs/configuration.md).",
        ) from error


def matching(folder: Place, pattern: str) -> list[Found]:
    """The files of a path or glob, relative to the folder unless it is absolute or a URL.

    A listing of a store is one request a folder, not one a file.
    """
    if is_url(pattern) or isinstance(folder, UPath):
        whole = place(pattern) if is_url(pattern) else folder / pattern.lstrip("/")
        assert isinstance(whole, UPath)
        with reaching(whole):
            listed = whole.fs.glob(whole.path, detail=True)
        return [
            Found(_named(whole, name), _mark_of_info(info))
            for name, info in listed.items()
            if info.get("type") == "file"
        ]
    base, relative = folder, pattern
    if Path(pattern).is_absolute():
        base = Path(Path(pattern).anchor)
        relative = str(Path(pattern).relative_to(base))
    found = ((path, mark_of(path)) for path in base.glob(relative) if path.is_file())
    return [Found(path, mark) for path, mark in found if mark is not None]


def mark_of(where: Place) -> Mark | None:
    """What changes whenever a file is written, as ``Found.mark``; None if it is gone."""
    if isinstance(where, UPath):
        try:
            with reaching(where):
                return _mark_of_info(where.fs.info(where.path))
        except FileNotFoundError:
            return None
    try:
        stat = where.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def exists(where: Place) -> bool:
    """Whether there is a file or folder."""
    with reaching(where):
        return where.exists()


def _named(pattern: UPath, name: str) -> Place:
    return place(f"{pattern.protocol}://{name.lstrip('/')}")


def _mark_of_info(info: Mapping[str, Any]) -> Mark:
    """Size, time and tag; beside a tag whole seconds, for a listing may be finer than a look at one."""
    times = [info[name] for name in _TIMES if info.get(name) is not None]
    tags = [str(info[name]) for name in _TAGS if info.get(name) is not None]
    tag = int(hashlib.sha256(tags[0].strip('"').encode()).hexdigest()[:12], 16) if tags else 0
    seconds = _seconds(times[0]) if times else 0.0
    written = int(seconds) * 10**9 if tag else int(seconds * 1e9)
    return int(info.get("size") or 0), written, tag


def _seconds(moment: object) -> float:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return moment.timestamp()
    return float(moment) if isinstance(moment, int | float) else 0.0


def _without_login(text: str) -> str:
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
