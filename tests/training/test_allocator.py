"""Memory kept within a fit: used again without new pages, and given back afterwards."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest

from ts_forecast.training.allocator import kept_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
_BLOCK = 48 * 2**20
_PAGE = 4096


def _pages_of_a_block() -> int:
    """Pages that the kernel had to bring for a block that is filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"1") * _BLOCK
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def test_kept_memory__block_freed_within__is_used_again() -> None:
    outside = min(_pages_of_a_block() for _ in range(3))
    with kept_memory():
        _, *others = (_pages_of_a_block() for _ in range(3))

    assert max(others) < outside / 5


def test_kept_memory__ended__gives_it_back() -> None:
    outside = min(_pages_of_a_block() for _ in range(3))
    with kept_memory():
        with kept_memory():
            _pages_of_a_block()
        within = _resident()
        assert _pages_of_a_block() < outside / 5, "the inner one ended the outer one"
    after = _resident()

    assert within - after > _BLOCK // 2
    assert _pages_of_a_block() > outside / 5, "what is freed is still kept"
