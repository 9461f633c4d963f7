"""What became of a COMMIT whose answer was lost: asked of the server, never guessed.

``pg_xact_status`` knows, as long as the transaction's number means the same transaction. After a crash it
may not: numbers that no WAL on disk speaks of are given out again. So a receipt also says in which life of
the server it was made: statistics are reset when a server recovers from a crash, and by nothing else that
happens of itself.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_before_delay,
    wait_random_exponential,
)

from ts_forecast.db.faults import is_connection_loss
from ts_forecast.errors import CommitUnknownError

Status = Literal["committed", "aborted", "in progress", "unknown"]

_LONGEST_SECONDS = 60.0
_ABANDONED_SECONDS = 3.0
_IN_THE_FUTURE = "22023"
_log = logging.getLogger(__name__)

_LIFE = "pg_stat_get_bgwriter_stat_reset_time()"
_NOTE = text(f"SELECT pg_current_xact_id_if_assigned()::text, {_LIFE}")
_STATUS = text("SELECT pg_xact_status(CAST(:id AS xid8))")
_END = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_xid = CAST(CAST(:id AS xid8) AS xid)"
)


@dataclass(frozen=True)
class Receipt:
    """What to ask by, noted before the COMMIT.

    Attributes:
        transaction_id: the server's number of it.
        life: when the server last recovered from a crash, or was made.
    """

    transaction_id: str
    life: datetime | None


def note(session: Session) -> Receipt | None:
    """The receipt of the session's transaction; None if it has written nothing."""
    session.flush()
    transaction_id, life = session.execute(_NOTE).one()
    return None if transaction_id is None else Receipt(transaction_id, life)


def was_committed(engine: Engine, receipt: Receipt, lost: DBAPIError) -> bool:
    """Whether the transaction of the receipt was committed; waits while that is open.

    Raises:
        CommitUnknownError: the server does not know, or does not answer within a minute.
    """
    begun = time.monotonic()

    def ask() -> Status:
        with engine.connect() as connection:
            status = _status(connection, receipt)
            if status == "in progress" and time.monotonic() - begun > _ABANDONED_SECONDS:
                # Its backend waits for a client that is gone, a network that swallows packets say.
                connection.execute(_END, {"id": receipt.transaction_id})
        return status

    asking = Retrying(
        stop=stop_before_delay(_LONGEST_SECONDS),
        wait=wait_random_exponential(0.1, 2.0),
        retry=retry_if_exception(is_connection_loss)
        | retry_if_result(lambda status: status == "in progress"),
    )
    try:
        status = asking(ask)
    except (DBAPIError, RetryError) as error:
        raise _unknown(receipt, str(getattr(error, "orig", error))) from lost
    if status == "unknown":
        raise _unknown(receipt, "it was too long ago, or the server has crashed since") from lost
    _log.warning("The connection was lost in a COMMIT; the transaction is %s", status)
    return status == "committed"


def _status(connection: Connection, receipt: Receipt) -> Status:
    number = {"id": receipt.transaction_id}
    is_same_life = connection.scalar(text(f"SELECT {_LIFE}")) == receipt.life
    try:
        with connection.begin_nested():
            status: Status = connection.scalar(_STATUS, number) or "unknown"
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _IN_THE_FUTURE or is_same_life:
            raise
        # The crash took it so wholly that its number is still to be given out.
        return "aborted"
    # Ours, or another's that was given our number after the crash? Had ours survived, its number would
    # not have been given out again: of an aborted one it does not matter whose it is.
    return "unknown" if status == "committed" and not is_same_life else status


def _unknown(receipt: Receipt, reason: str) -> CommitUnknownError:
    return CommitUnknownError(
        "The connection was lost in a COMMIT, and the server cannot say what became of transaction "
        f"{receipt.transaction_id}: {' '.join(reason.split())}.",
        remedy="Look whether its rows are there before doing it again.",
    )
