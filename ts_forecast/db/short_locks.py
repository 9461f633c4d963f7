"""Changing tables that others use, without making them wait for long.

Who waits for a lock makes all later comers wait behind it. So a change takes its locks in one short
transaction under a ``lock_timeout``, and is tried again. The timeout is shorter than
``deadlock_timeout``: a deadlock ends our attempt and never another's transaction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from ts_forecast.errors import LockedError

LOCK_TIMEOUT_MS = 100
ATTEMPTS = 12
_LOCK_NOT_AVAILABLE, _DEADLOCK = "55P03", "40P01"
Result = TypeVar("Result")


def with_short_locks(
    engine: Engine,
    change: Callable[[Connection], Result],
    *,
    subject: str,
    attempts: int | None = None,
) -> Result:
    """Call ``change`` in a transaction of its own, whose locks each wait for 100 ms at most; commits.

    Args:
        change: may be called several times; each time but the last it is rolled back.
        subject: what it changes, for the error.
        attempts: None: ``ATTEMPTS``, about 10 s.

    Raises:
        LockedError: others kept their locks through all attempts; nothing was changed.
    """
    for attempt in range(attempts or ATTEMPTS):
        try:
            with engine.begin() as work:
                work.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
                return change(work)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
                raise
            time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
    raise LockedError(
        f"{subject} is in use: another session kept its lock.",
        remedy="Find it with `ts-forecast db activity`, and try again when it has ended.",
    )
