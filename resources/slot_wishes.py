"""Who wants a free slot most: each step that could use one says how long it still has to work.

One file a process, in a folder of the host. A wish is forgotten when it is not renewed, so nothing has to
be cleaned up after a process that was killed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_FRESH_SECONDS = 5.0


def wish(folder: Path, seconds: float) -> bool:
    """Say that this process could use a slot; whether nobody has more left to do.

    Args:
        folder: of the host; made if absent.
        seconds: that it still has to work as things are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / str(os.getpid())
    draft = own.with_suffix(".new")
    draft.write_text(repr(seconds))
    draft.rename(own)
    others = [path for path in folder.iterdir() if path.suffix == "" and path != own]
    return all(seconds >= _wished(path) for path in others)


def take_back(folder: Path) -> None:
    """This process wants none any more."""
    (folder / str(os.getpid())).unlink(missing_ok=True)


def _wished(path: Path) -> float:
    """What another process wishes now; one that has not said so lately is forgotten."""
    with suppress(OSError, ValueError):
        if time.time() - path.stat().st_mtime < _FRESH_SECONDS:
            return float(path.read_text())
        path.unlink()
    return 0.0
