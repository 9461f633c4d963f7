"""The daemon's backfill loop: how long it sleeps."""

import logging
import threading
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._daemon import controller
from dagster._daemon.backfill import execute_backfill_iteration_loop

from resources.daemon import look_often


class _Noticed(threading.Event):
    """An event that nobody waits for; it keeps what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return True


def test_look_often__the_backfill_loop__sleeps_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", controller.DEFAULT_DAEMON_INTERVAL_SECONDS
    )
    assert controller.DEFAULT_DAEMON_INTERVAL_SECONDS == 30
    look_often()
    shutdown = _Noticed()
    with dg.DagsterInstance.ephemeral() as instance:
        loop = execute_backfill_iteration_loop(
            SimpleNamespace(instance=instance),  # type: ignore[arg-type]
            logging.getLogger(__name__),
            shutdown,
        )
        while not shutdown.waits:
            next(loop)
    assert 1 < shutdown.waits[0] <= 2
