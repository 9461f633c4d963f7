"""Units of work that are repeated when the database, not the work, was at fault.

Which errors those are, how long one waits between attempts, and what became of a COMMIT whose answer
was lost. The transaction itself is ``engine``'s.

The waits grow exponentially and are drawn from zero up (full jitter): those that deadlocked, or that a
restart of the server cut off, must not come back in step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from ts_forecast.db.engine import Isolation, is_read_only, transaction
from ts_forecast.errors import CommitUnknownError

T = TypeVar("T")

_DEADLOCK, _SERIALIZATION_FAILURE = "40P01", "40001"
# Connection exceptions; the server is shutting down, has crashed, or is not up yet.
_LOST = ("08", "57P01", "57P02", "57P03")
_NOT_UP_YET = ("starting up", "shutting down", "recovery mode", "not yet accepting connections")
_LONGEST_COMMIT_SECONDS = 60.0
_ABANDONED_SECONDS = 3.0
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
    once and neither twice nor not at all. (On the promoted replica of an asynchronous pair nobody can
    know: give the replica ``synchronous_commit`` where that matters.)

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
        written: str | None = None
        is_done = False
        try:
            with transaction(
                engine, isolation=isolation, read_only=read_only, user=user
            ) as session:
                result = work(session)
                if is_writing:
                    session.flush()
                    written = session.scalar(text("SELECT pg_current_xact_id_if_assigned()::text"))
                is_done = True
        except DBAPIError as error:
            # Until is_done no COMMIT was sent; and where nothing was written there is nothing to ask.
            if not (is_done and written and is_connection_loss(error)):
                raise
            if not _was_committed(engine, written, error):
                raise
        return result

    return Retrying(
        stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds),
        wait=wait_random_exponential(patience.first_wait, patience.longest_wait),
        retry=retry_if_exception(may_repeat),
        before_sleep=_say,
        reraise=True,
    )(attempt)


def may_repeat(error: BaseException) -> bool:
    """Whether repeating the transaction may end better: none of its work was at fault."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state in (_DEADLOCK, _SERIALIZATION_FAILURE) or is_connection_loss(error)


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection was lost, or could not be made because the server is not up.

    psycopg gives most of these no SQLSTATE.
    """
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or (state or "").startswith(_LOST):
        return True
    # No connection yet: libpq has only a text. Behind FATAL stands what the server answered, which is
    # a refusal (a password, a database that does not exist) unless it says that it is not up.
    if state is None and isinstance(error.orig, psycopg.OperationalError):
        reason = str(error.orig)
        return "FATAL" not in reason or any(words in reason for words in _NOT_UP_YET)
    return False


def _was_committed(engine: Engine, transaction_id: str, lost: DBAPIError) -> bool:
    """What became of a transaction whose COMMIT was under way when the connection was lost."""
    begun = time.monotonic()

    def ask() -> str | None:
        with engine.connect() as connection:
            answer: str | None = connection.scalar(
                text("SELECT pg_xact_status(CAST(:id AS xid8))"), {"id": transaction_id}
            )
            if answer == "in progress" and time.monotonic() - begun > _ABANDONED_SECONDS:
                # Its backend waits for a client that is gone, a network that swallows packets say.
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE backend_xid = CAST(CAST(:id AS xid8) AS xid)"
                    ),
                    {"id": transaction_id},
                )
        return answer

    asking = Retrying(
        stop=stop_before_delay(_LONGEST_COMMIT_SECONDS),
        wait=wait_random_exponential(0.1, 2.0),
        retry=retry_if_exception(is_connection_loss)
        | retry_if_result(lambda answer: answer == "in progress"),
    )
    try:
        answer = asking(ask)
    except (DBAPIError, RetryError) as error:
        raise _unknown(transaction_id, str(error)) from lost
    if answer not in ("committed", "aborted"):
        raise _unknown(transaction_id, "it has forgotten a transaction that old")
    _log.warning("The connection was lost in a COMMIT; the transaction is %s", answer)
    return answer == "committed"


def _unknown(transaction_id: str, reason: str) -> CommitUnknownError:
    return CommitUnknownError(
        "The connection was lost in a COMMIT, and the server cannot say what became of transaction "
        f"{transaction_id}: {' '.join(reason.split())}.",
        remedy="Look whether its rows are there before doing it again.",
    )


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    reason = " ".join(str(getattr(error, "orig", error)).split())
    _log.warning(
        "A transaction is repeated in %.1f s, attempt %d: %s",
        state.upcoming_sleep,
        state.attempt_number + 1,
        reason,
    )
