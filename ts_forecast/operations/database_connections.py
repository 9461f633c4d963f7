"""Connections that nobody uses, and their end; only idle ones are ended.

A session that holds an advisory lock is a writer at work elsewhere (a publication holds its slice so), and
one that listens waits for events of Dagster's: both are left alone unless they are named.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ts_forecast.errors import DatabaseError

_OURS = "datname = current_database() AND pid <> pg_backend_pid()"
_IDLE = f"""
    {_OURS} AND state LIKE 'idle%' AND backend_type = 'client backend'
    AND state_change < clock_timestamp() - make_interval(secs => :seconds)
"""
_RESTS = r"""
    NOT EXISTS (
        SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
    ) AND query !~* '^\s*LISTEN\M'
"""
_TERMINATE_WAIT_MS = 2000


@dataclass(frozen=True)
class IdleConnection:
    """A connection whose client has asked nothing for a while.

    Attributes:
        since: when it became idle, to the microsecond: by this it is known again.
    """

    pid: int
    user: str | None
    application: str | None
    client: str | None
    state: str
    idle_seconds: float
    last_query: str | None
    since: str


@dataclass(frozen=True)
class Termination:
    """What became of a connection that was to end."""

    pid: int
    ended: bool
    reason: str = ""


def idle_connections(
    connection: Connection, *, older_than: float, pid: int | None = None
) -> list[IdleConnection]:
    """Connections that have been idle for so many seconds, longest first.

    All that are outside of a transaction, hold no advisory lock and listen for nothing; of a ``pid``
    alone, whatever it holds.

    Raises:
        DatabaseError: there is no such pid, or it is at work or has not been idle for so long.
    """
    condition = f"{_IDLE} AND " + ("a.pid = :pid" if pid else f"state = 'idle' AND {_RESTS}")
    query = text(
        f"""
        SELECT pid, usename AS user, nullif(application_name, '') AS application,
               host(client_addr) AS client, state, query AS last_query,
               extract(epoch FROM clock_timestamp() - state_change)::float8 AS idle_seconds,
               state_change::text AS since
        FROM pg_stat_activity a WHERE {condition} ORDER BY idle_seconds DESC
        """
    )
    rows = connection.execute(query, {"seconds": older_than, "pid": pid})
    found = [IdleConnection(**row._mapping) for row in rows]
    if pid is not None and not found:
        raise _not_idle(connection, pid, older_than)
    return found


def terminate(engine: Engine, idle: list[IdleConnection]) -> list[Termination]:
    """End the connections, each only if its client has asked nothing since it was looked at."""
    return [_terminate_one(engine, connection) for connection in idle]


def _terminate_one(engine: Engine, idle: IdleConnection) -> Termination:
    query = text(
        f"""
        SELECT pg_terminate_backend(pid, {_TERMINATE_WAIT_MS}) FROM pg_stat_activity
        WHERE {_OURS} AND pid = :pid AND state = :state
          AND state_change = CAST(:since AS timestamptz)
        """
    )
    values = {"pid": idle.pid, "state": idle.state, "since": idle.since}
    try:
        with engine.connect() as connection:
            ended = connection.scalar(query, values)
    except DBAPIError as error:
        return Termination(idle.pid, False, str(error.orig).splitlines()[0])
    if ended is None:
        return Termination(idle.pid, False, "it is at work again, or gone")
    return Termination(idle.pid, bool(ended), "" if ended else "it has not ended yet")


def _not_idle(connection: Connection, pid: int, older_than: float) -> DatabaseError:
    row = connection.execute(
        text(f"SELECT state, usename FROM pg_stat_activity WHERE {_OURS} AND pid = :pid"),
        {"pid": pid},
    ).one_or_none()
    if row is None:
        return DatabaseError(
            f"No session of this database has the PID {pid}.",
            remedy="See `ts-forecast db activity` and `ts-forecast db locks`.",
        )
    if row.state is None:
        return DatabaseError(
            f"What the session {pid} of {row.usename} does is hidden from this role.",
            remedy="Ask its user or a superuser, or have yourself granted pg_monitor.",
        )
    if not row.state.startswith("idle"):
        return DatabaseError(
            f"The session {pid} of {row.usename} is at work.",
            remedy=f"Only idle ones are ended; to stop its query: SELECT pg_cancel_backend({pid});",
        )
    return DatabaseError(
        f"The session {pid} of {row.usename} has not been idle for {older_than:.0f} s.",
        remedy="Wait, or name a shorter time with --idle-for.",
    )
