"""Logging as a deployment has it, taken away again after each test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from ts_forecast.logs.setup import OURS, uninstall


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take our handlers and levels away after the test."""
    levels = {name: logging.getLogger(name).level for name in OURS}
    yield
    uninstall()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
