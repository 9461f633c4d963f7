"""What the database's sessions do now: running queries, and who waits for whose lock.

Ending a session is ``database_connections``.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

_OURS = "datname = current_database() AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class RunningQuery:
    """A session that is at work or inside of a transaction.

    Attributes:
        state: as PostgreSQL names it; None where it is hidden from the role.
        seconds: since the query began, or since it ended for one that is idle in its transaction.
        transaction_seconds: since the transaction began.
        wait: what it waits for, e.g. ``Lock: relation``; None while it works.
    """

    pid: int
    user: str | None
    application: str | None
    client: str | None
    state: str | None
    seconds: float | None
    transaction_seconds: float | None
    wait: str | None
    query: str | None


@dataclass(frozen=True)
class LockWait:
    """A session that waits for a lock, and one of those that it waits for.

    Attributes:
        waiting_seconds: since it began to wait.
        blocking_pid: 0 for a prepared transaction.
        blocking_state: ``idle in transaction`` is the usual culprit.
        blocking_seconds: age of the blocker's transaction.
    """

    pid: int
    user: str | None
    waiting_seconds: float | None
    lock: str
    query: str | None
    blocking_pid: int
    blocking_user: str | None
    blocking_state: str | None
    blocking_seconds: float | None
    blocking_query: str | None


def running_queries(connection: Connection, *, older_than: float = 0.0) -> list[RunningQuery]:
    """Sessions that are at work or in a transaction, longest first.

    Args:
        older_than: seconds; shorter ones are left out, hidden ones are not.
    """
    query = text(
        f"""
        SELECT * FROM (
            SELECT pid, usename AS user, nullif(application_name, '') AS application,
                   host(client_addr) AS client, state,
                   extract(epoch FROM clock_timestamp() - CASE WHEN state = 'active'
                           THEN query_start ELSE state_change END)::float8 AS seconds,
                   extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds,
                   wait_event_type || ': ' || wait_event AS wait, query
            FROM pg_stat_activity
            WHERE {_OURS} AND state IS DISTINCT FROM 'idle'
              AND (backend_type IS NULL OR backend_type IN ('client backend', 'parallel worker'))
        ) found
        WHERE seconds IS NULL OR greatest(seconds, transaction_seconds) >= :older_than
        ORDER BY greatest(seconds, transaction_seconds) DESC NULLS LAST, pid
        """
    )
    rows = connection.execute(query, {"older_than": older_than})
    return [RunningQuery(**row._mapping) for row in rows]


def lock_waits(connection: Connection) -> list[LockWait]:
    """Who waits for whom, longest first: a session that waits for two is there twice.

    ``pg_blocking_pids`` knows queues too, which the design's join over pg_locks does not.
    """
    query = text(
        """
        SELECT w.pid, a.usename AS user,
               extract(epoch FROM clock_timestamp() - w.waitstart)::float8 AS waiting_seconds,
               w.mode || ' on ' || coalesce(w.relation::regclass::text, w.locktype) AS lock,
               a.query, b.pid AS blocking_pid, blocker.usename AS blocking_user,
               blocker.state AS blocking_state,
               extract(epoch FROM clock_timestamp() - blocker.xact_start)::float8 AS blocking_seconds,
               blocker.query AS blocking_query
        FROM pg_locks w
        CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(w.pid)) AS pid) b
        LEFT JOIN pg_stat_activity a ON a.pid = w.pid
        LEFT JOIN pg_stat_activity blocker ON blocker.pid = b.pid
        WHERE NOT w.granted AND a.datname = current_database()
        ORDER BY waiting_seconds DESC NULLS LAST, w.pid, b.pid
        """
    )
    return [LockWait(**row._mapping) for row in connection.execute(query)]
