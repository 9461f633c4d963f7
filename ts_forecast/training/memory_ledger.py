"""Who on this host was granted memory and has not taken it yet: a file for each fit, locked while it lasts.

The kernel frees a lock with its process, so nothing has to expire. The files lie in the system's temporary
folder, one folder a user: memory is the host's, whichever deployment a fit is of.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_ALONE = "lock"
_SUFFIX = ".fit"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reservation:
    """Memory that this process was granted; given back at the end of the block, or with the process."""

    path: Path
    descriptor: int

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Ledger:
    """The reservations of this host.

    Args:
        folder: where they lie; made if absent.
    """

    def __init__(self, folder: Path | None = None) -> None:
        name = f"ts-forecast-memory-{os.getuid()}"
        self._folder = folder or Path(tempfile.gettempdir(), name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_uid != os.getuid():
            # Somebody else's: what it says is not to be trusted, and nothing can be written there.
            self._folder = Path(tempfile.mkdtemp(prefix=name))
            _log.warning("Reservations of memory are not shared: %s is not ours.", name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While one looks and reserves, no other process does."""
        descriptor = os.open(self._folder / _ALONE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def outstanding(self) -> int:
        """Bytes that were granted to fits and that these have not taken yet.

        What a process has taken since is gone from what the host has free. Files of processes that
        are gone are removed; only within ``alone``.
        """
        return sum(_not_taken(path) for path in self._folder.glob(f"*{_SUFFIX}"))

    def reserve(self, size: int) -> Reservation:
        """Grant this process so many bytes; only within ``alone``."""
        path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        had = psutil.Process().memory_info().rss
        content = json.dumps({"pid": os.getpid(), "size": size, "had": had})
        os.write(descriptor, content.encode())
        return Reservation(path, descriptor)


def _not_taken(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = json.loads(os.read(descriptor, 4096))
            with suppress(psutil.Error):
                has = psutil.Process(said["pid"]).memory_info().rss
                return max(0, int(said["size"]) - max(0, has - int(said["had"])))
            return 0
        path.unlink(missing_ok=True)
        return 0
    finally:
        os.close(descriptor)
