"""The statements that take the server's time, from pg_stat_statements where it is installed.

Where it is not, the answer says how to get it: the embedded server has no contrib extensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

Order = Literal["mean", "total", "calls"]
_NOT_LOADED = "55000"
_LOAD = "set shared_preload_libraries = 'pg_stat_statements' and restart the server"
_COLUMNS = {"mean": "mean_exec_time", "total": "total_exec_time", "calls": "calls"}


@dataclass(frozen=True)
class Statement:
    """A statement with its constants taken out; times in milliseconds.

    Attributes:
        hit_ratio: share of its pages that were in shared memory; None if it read none.
    """

    user: str | None
    calls: int
    rows: int
    total_ms: float
    mean_ms: float
    max_ms: float
    stddev_ms: float
    hit_ratio: float | None
    query: str


@dataclass(frozen=True)
class SlowStatements:
    """The slowest statements, or why there are none.

    Attributes:
        remedy: what to do to see statements; empty where they are counted.
    """

    statements: list[Statement]
    remedy: str = ""


def slow_statements(
    connection: Connection, *, order: Order = "mean", at_least_ms: float = 0.0, limit: int = 10
) -> SlowStatements:
    """The slowest statements of this database since the counters were reset."""
    schema = connection.scalar(
        text(
            "SELECT extnamespace::regnamespace::text FROM pg_extension "
            "WHERE extname = 'pg_stat_statements'"
        )
    )
    if remedy := _obstacle(connection, is_created=schema is not None):
        return SlowStatements([], remedy)
    query = text(
        f"""
        SELECT r.rolname AS user, calls, rows, total_exec_time AS total_ms, mean_exec_time AS mean_ms,
               max_exec_time AS max_ms, stddev_exec_time AS stddev_ms,
               (shared_blks_hit::float8 / nullif(shared_blks_hit + shared_blks_read, 0)) AS hit_ratio,
               query
        FROM {schema}.pg_stat_statements s LEFT JOIN pg_roles r ON r.oid = s.userid
        WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND query NOT LIKE '%pg_stat_statements%' AND mean_exec_time >= :at_least
        ORDER BY {_COLUMNS[order]} DESC LIMIT :limit
        """
    )
    try:
        rows = connection.execute(query, {"at_least": at_least_ms, "limit": limit})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_LOADED:
            raise
        # Found out only now by a role that may not read the setting.
        return SlowStatements([], f"Statements are not counted: {_LOAD}.")
    return SlowStatements([Statement(**row._mapping) for row in rows])


def _obstacle(connection: Connection, *, is_created: bool) -> str:
    """What keeps statements from being counted, and how to mend it; empty if nothing does."""
    is_there, libraries, log_after = connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'), "
            # The view leaves out what the role may not read, where current_setting fails.
            "(SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries'), "
            "current_setting('log_min_duration_statement')"
        )
    ).one()
    # A role without pg_read_all_settings does not see the libraries: then the extension is proof.
    is_loaded = "pg_stat_statements" in libraries if libraries is not None else is_created
    if is_there and is_created and is_loaded:
        return ""
    logged = (
        "statements are not logged either (log_min_duration_statement = -1)"
        if log_after == "-1"
        else f"the server's log has those over {log_after}"
    )
    if not is_there:
        return (
            "This server has no pg_stat_statements (the embedded one has no contrib extensions): set "
            f"DATABASE_URL to a server with postgresql-contrib. Until then {logged}."
        )
    steps = []
    if not is_loaded:
        steps.append(_LOAD)
    if not is_created:
        steps.append("as a superuser run CREATE EXTENSION pg_stat_statements;")
    return f"Statements are not counted: {', then '.join(steps)}. Until then {logged}."
