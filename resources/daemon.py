"""Dagster's daemon, looking at backfills every two seconds: ``python -m resources.daemon run``.

Its own loop sleeps 30 s between two looks and has no setting for it. A backfill passes three times
from one asset to the next, so half a minute of idle slots each time; a look without a backfill is one
query of a few milliseconds. Everything else is the daemon as it comes.
"""

from __future__ import annotations

from dagster._daemon import controller
from dagster._daemon.cli import main

_BACKFILL_SECONDS = 2


def look_often() -> None:
    """Shorten the sleep of the backfill loop, which reads its number when it starts.

    The number is also how often sensors are looked at where the instance sets no interval: ours do
    not depend on it.
    """
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = _BACKFILL_SECONDS


if __name__ == "__main__":
    look_often()
    main()
