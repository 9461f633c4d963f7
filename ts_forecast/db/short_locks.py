"""Changing tables that others use, without making them wait for long.

Who waits for a lock makes all later comers wait behind it. So a change takes its locks in one short
transaction under a ``lock_timeout``, and is tried again. The timeout is shorter than
``deadlock_timeout``: a deadlock ends our attempt and never another's transaction. Slices, which are
swapped while others train, have a way of their own (``partitions.lock_for_change``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from ts_forecast.errors import LockedError

LOCK_TIMEOUT_MS = 100
ATTEMPTS = 12
_VACUUM_MS = 3000
# Lock not available, deadlock.
_NOT_NOW = ("55P03", "40P01")
Mode = Literal["SHARE UPDATE EXCLUSIVE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]
Result = TypeVar("Result")


def lock_tables(connection: Connection, locks: Sequence[tuple[str, Mode]]) -> None:
    """Lock tables in this order until the transaction ends; ``ONLY`` them, not their partitions.

    At first in a mode that shuts no reader or writer out, and whose waiting ends an autovacuum after a
    second; then in earnest, each within 100 ms.

    Raises:
        OperationalError: another kept a lock.
    """
    names = ", ".join(f"ONLY {name}" for name, _ in locks)
    connection.execute(text(f"SET LOCAL lock_timeout = {_VACUUM_MS}"))
    connection.execute(text(f"LOCK TABLE {names} IN SHARE UPDATE EXCLUSIVE MODE"))
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
    for name, mode in locks:
        connection.execute(text(f"LOCK TABLE ONLY {name} IN {mode} MODE"))


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
            if getattr(error.orig, "sqlstate", None) not in _NOT_NOW:
                raise
            time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
    raise LockedError(
        f"{subject} is in use: another session kept its lock.",
        remedy="Find it with `ts-forecast db activity`, and try again when it has ended.",
    )
