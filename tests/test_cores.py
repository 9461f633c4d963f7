"""Cores and threads: what this process may use, shared out without oversubscribing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast import cores
from ts_forecast.cores import threads_of_each, usable_cores


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)]
)
def test_usable_cores__container_with_a_quota__are_those_of_the_quota(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(cores, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))

    assert usable_cores() == expected


@given(available=st.integers(1, 256), fits=st.integers(1, 256))
def test_threads_of_each__any_host__share_the_cores_and_a_lone_fit_leaves_one(
    available: int, fits: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "usable_cores", lambda: available)
        threads = threads_of_each(fits)

    assert threads >= 1
    assert threads * fits <= max(available, fits)
    if fits == 1 and available > 1:
        assert threads == available - 1
