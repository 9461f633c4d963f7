"""Memory kept within a fit: used again without new pages, and given back afterwards.

Each in an interpreter of its own: what other tests left in the allocator would decide otherwise.
"""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
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


def use_again() -> None:
    outside = min(_pages_of_a_block() for _ in range(3))
    with kept_memory():
        _, *others = (_pages_of_a_block() for _ in range(3))

    assert max(others) < outside / 5, (others, outside)


def give_back() -> None:
    outside = min(_pages_of_a_block() for _ in range(3))
    with kept_memory():
        with kept_memory():
            _pages_of_a_block()
        within = _resident()
        again = _pages_of_a_block()
        assert again < outside / 5, "the inner one ended the outer one"
    after = _resident()

    assert within - after > _BLOCK // 2, (within, after)
    assert _pages_of_a_block() > outside / 5, "what is freed is still kept"


@pytest.mark.parametrize("case", ["use_again", "give_back"])
def test_kept_memory__in_a_fresh_interpreter(case: str) -> None:
    program = f"from tests.training.test_allocator import {case}; {case}()"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
