"""Which errors of the database are nobody's fault, so that the same work may go well the next time."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, OperationalError

_DEADLOCK, _SERIALIZATION_FAILURE = "40P01", "40001"
# Connection exceptions; the server is shutting down, has crashed, or is not up yet.
_LOST = ("08", "57P01", "57P02", "57P03")
_NOT_UP_YET = ("starting up", "shutting down", "recovery mode", "not yet accepting connections")


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
    if state is None and isinstance(error, OperationalError):
        reason = str(error.orig)
        return "FATAL" not in reason or any(words in reason for words in _NOT_UP_YET)
    return False
