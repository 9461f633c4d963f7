"""Refreshing the materialized views beside their readers.

``mv_experiment_summary`` and ``mv_model_performance`` are made by the migrations; what is said here holds
for any other in our schemas too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from ts_forecast.db.engine import transaction
from ts_forecast.operations.database_scope import SCOPE

_LOCK_TIMEOUT = "5s"


@dataclass(frozen=True)
class MaterializedView:
    """One of our views.

    Attributes:
        name: with its schema, quoted for SQL.
        concurrently: whether it can be refreshed beside its readers: it has been filled once and has a
            unique index over all rows.
        may_refresh: whether this role may.
    """

    name: str
    concurrently: bool
    may_refresh: bool
    size_bytes: int


@dataclass(frozen=True)
class Refreshed:
    """A view that shows what stands now."""

    name: str
    rows: int
    seconds: float


def materialized_views(connection: Connection) -> list[MaterializedView]:
    """The views, by name."""
    rows = connection.execute(
        text(
            """
            SELECT format('%I.%I', n.nspname, c.relname) AS name,
                   c.relispopulated AND EXISTS (
                       SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique
                       AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                   ) AS concurrently,
                   pg_has_role(c.relowner, 'USAGE') AS may_refresh,
                   pg_total_relation_size(c.oid) AS size_bytes
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'm' AND n.nspname = ANY(:schemas) ORDER BY 1
            """
        ),
        SCOPE,
    )
    return [MaterializedView(**row._mapping) for row in rows]


def refresh(engine: Engine, view: MaterializedView) -> Refreshed:
    """Compute the view anew; its readers see the old rows until the commit, and wait for nothing.

    One that was never filled is filled under a lock: it cannot be read before anyway.

    Raises:
        sqlalchemy.exc.DBAPIError: the role may not, or another refresh has run for 5 s.
    """
    begun = time.monotonic()
    how = "CONCURRENTLY " if view.concurrently else ""
    with transaction(engine) as session:
        session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        session.execute(text(f"REFRESH MATERIALIZED VIEW {how}{view.name}"))
        rows = int(session.scalar(text(f"SELECT count(*) FROM {view.name}")) or 0)
    return Refreshed(view.name, rows, time.monotonic() - begun)
