"""Host memory that one step of a fit frees and the next one needs again.

glibc gives a block of more than 32 MB back to the kernel whenever it is freed, and the kernel zeroes each
page of the next one. Models of wide layers free and ask for hundreds of megabytes a step: on CPU a third of
TiDE's time went there (docs/measurements.md). Results are the same to the last bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""Where glibc's own thresholds, which move with what is freed, end; mallopt stops them moving. Bytes."""

_NEVER = 2**31 - 1
_depth = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed within, for whoever asks next; afterwards it goes back to the kernel.

    Without glibc (macOS, musl) nothing changes. For one thread of a process; may be nested.
    """
    global _depth
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim") or not hasattr(libc, "mallopt"):
        yield
        return
    _depth += 1
    libc.mallopt(_M_MMAP_THRESHOLD, _NEVER)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            libc.mallopt(_M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
            libc.mallopt(_M_TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)
            libc.malloc_trim(0)
