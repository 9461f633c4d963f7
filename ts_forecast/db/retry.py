"""Units of work that are repeated when the database, not the work, was at fault.

How often, and how long one waits between attempts. Which errors those are is ``faults``; what became of a
COMMIT whose answer was lost, ``commit``; the transaction itself, ``engine``.

The waits grow exponentially and are drawn from zero up (full jitter): those that deadlocked, or that a
restart of the server cut off, must not come back in step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from ts_forecast.db.commit import Receipt, note, was_committed
from ts_forecast.db.engine import Isolation, is_read_only, transaction
from ts_forecast.db.faults import is_connection_loss, may_repeat

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often and how long a unit of work is repeated.

    Attributes:
        attempts: at most, the first included.
        seconds: no attempt begins later than this after the first one.
        first_wait, longest_wait: upper bounds of the wait in seconds; it doubles from attempt to attempt.
    """

    attempts: int = 6
    seconds: float = 60.0
    first_wait: float = 0.5
    longest_wait: float = 10.0


PATIENT = Patience()


def in_transaction(
    engine: Engine,
    work: Callable[[Session], T],
    *,
    isolation: Isolation | None = None,
    read_only: bool = False,
    user: str | None = None,
    patience: Patience = PATIENT,
) -> T:
    """Run a unit of work in a transaction; repeat it whole after a fault that it has no part in.

    Those faults are a lost connection, a deadlock and a serialization failure, and no other. When the
    connection is lost in the COMMIT, the server is asked what became of it, so that the work is done
    once and neither twice nor not at all. A server that crashed meanwhile, or another that took its place,
    can say that it is not committed; where it seems to be, nobody knows, and nothing is repeated.

    Args:
        work: touches nothing but the database, through its session, and makes its objects anew each
            time. Advisory locks that other connections hold may be lost with the server.
        isolation, read_only, user: as for ``transaction``.

    Returns:
        What the work returned in the attempt that was committed.

    Raises:
        CommitUnknownError: it may be committed or not, and the server cannot say.
        Exception: whatever the last attempt raised.
    """
    is_writing = not (read_only or is_read_only(engine))

    def attempt() -> T:
        receipt: Receipt | None = None
        is_done = False
        try:
            with transaction(
                engine, isolation=isolation, read_only=read_only, user=user
            ) as session:
                result = work(session)
                if is_writing:
                    receipt = note(session)
                is_done = True
        except DBAPIError as error:
            # Until is_done no COMMIT was sent; and where nothing was written there is nothing to ask.
            if not (is_done and receipt and is_connection_loss(error)):
                raise
            if not was_committed(engine, receipt, error):
                raise
        return result

    return Retrying(
        stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds),
        wait=wait_random_exponential(patience.first_wait, patience.longest_wait),
        retry=retry_if_exception(may_repeat),
        before_sleep=_say,
        reraise=True,
    )(attempt)


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    reason = " ".join(str(getattr(error, "orig", error)).split())
    _log.warning(
        "A transaction is repeated in %.1f s, attempt %d: %s",
        state.upcoming_sleep,
        state.attempt_number + 1,
        reason,
    )
