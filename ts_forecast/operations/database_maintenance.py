"""The weekly upkeep: vacuum and analyze what needs it, refresh the materialized views, rebuild an index.

Autovacuum does most of it; it never analyzes a partitioned parent, whose statistics the planner needs, and
a burst of work may outrun it. Every step works beside readers and writers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ts_forecast.errors import DatabaseError
from ts_forecast.operations.database_scope import SCHEMAS, SCOPE
from ts_forecast.operations.materialized_views import materialized_views, refresh

# As autovacuum's thresholds, at a quarter of its share: a weekly round finds what it has not come to.
_ROWS, _SHARE = 50, 0.05
_LOCK_TIMEOUT = "2s"


@dataclass(frozen=True)
class Step:
    """Something that needs doing.

    Attributes:
        target: the table or view, quoted for SQL.
        reason: why, for people.
        may: whether this role may; else the step is left out and said to be.
    """

    kind: Literal["vacuum", "analyze", "refresh"]
    target: str
    reason: str
    may: bool = True


@dataclass(frozen=True)
class Done:
    """What became of a step; ``problem`` is empty if it was done."""

    step: Step
    seconds: float
    problem: str = ""


def planned_steps(connection: Connection, *, everything: bool = False) -> list[Step]:
    """What needs doing now: tables first, for the views are computed from them.

    Args:
        everything: every table, whether it needs it or not.
    """
    query = text(_NEEDS)
    values = SCOPE | {"rows": _ROWS, "share": _SHARE, "everything": everything}
    steps = [Step(**row._mapping) for row in connection.execute(query, values)]
    for view in materialized_views(connection):
        steps.append(Step("refresh", view.name, "shows what stood then", view.may_refresh))
    return steps


def perform(engine: Engine, step: Step) -> Done:
    """Do it; a step that another session's lock or the role's rights forbid is said to be left."""
    if not step.may:
        return Done(step, 0.0, "left: only its owner may")
    begun = time.monotonic()
    try:
        if step.kind == "refresh":
            with engine.connect() as connection:
                views = {view.name: view for view in materialized_views(connection)}
            refresh(engine, views[step.target])
        else:
            with _alone(engine) as connection:
                connection.execute(text(_statement(connection, step)))
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        return Done(step, time.monotonic() - begun, f"left: {reason}")
    return Done(step, time.monotonic() - begun)


def reindex(engine: Engine, name: str) -> int:
    """Rebuild an index beside its readers and writers; the bytes that it freed.

    It waits for transactions that are older than itself, however long they take.

    Raises:
        DatabaseError: there is no such index of ours, or it could not be rebuilt; nothing is left of
            the attempt.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        index = connection.scalar(
            text(
                "SELECT format('%I.%I', nspname, c.relname) FROM pg_class c JOIN pg_namespace n "
                "ON n.oid = c.relnamespace WHERE c.relkind IN ('i', 'I') AND nspname = ANY(:schemas) "
                "AND CAST(:name AS text) IN (c.relname, nspname || '.' || c.relname) "
                "ORDER BY array_position(:schemas, nspname::text) LIMIT 1"
            ),
            SCOPE | {"name": name},
        )
        if index is None:
            raise DatabaseError(
                f"There is no index {name} in the schemas {', '.join(SCHEMAS)}.",
                remedy="See `ts-forecast db indexes`.",
            )
        before = _size(connection, index)
        try:
            connection.execute(text(f"REINDEX INDEX CONCURRENTLY {index}"))
        except DBAPIError as error:
            with suppress(DBAPIError):
                _drop_unfinished(connection, index)
            raise DatabaseError(
                f"The index {index} was not rebuilt: {' '.join(str(error.orig).split())}.",
                remedy="It is used as before. Only its table's owner may rebuild it.",
            ) from error
        return before - _size(connection, index)


def _statement(connection: Connection, step: Step) -> str:
    if step.kind == "vacuum":
        return f"VACUUM (ANALYZE) {step.target}"
    # Since 18 a parent can be analyzed without its partitions, which have statistics of their own.
    version = int(connection.scalar(text("SHOW server_version_num")) or 0)
    is_parent = connection.scalar(
        text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:name)"),
        {"name": step.target},
    )
    return f"ANALYZE {'ONLY ' if is_parent and version >= 180_000 else ''}{step.target}"


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A connection without transactions, for VACUUM, that does not queue for locks for long."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
        try:
            yield connection
        finally:
            with suppress(DBAPIError):
                connection.execute(text("RESET lock_timeout"))


def _size(connection: Connection, index: str) -> int:
    query = text(
        "SELECT sum(pg_relation_size(oid)) FROM ("
        " SELECT CAST(:index AS regclass) AS oid UNION"
        " SELECT relid FROM pg_partition_tree(CAST(:index AS regclass))) parts"
    )
    return int(connection.scalar(query, {"index": index}) or 0)


def _drop_unfinished(connection: Connection, index: str) -> None:
    """The new indexes of a rebuild that was ended; they would slow down every write."""
    left = connection.scalars(
        text(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i "
            "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_index old ON coalesce(pg_partition_root(old.indrelid), old.indrelid) "
            "= coalesce(pg_partition_root(i.indrelid), i.indrelid) "
            "WHERE old.indexrelid = to_regclass(:index) AND NOT i.indisvalid "
            "AND c.relname ~ '_ccnew[0-9]*$'"
        ),
        {"index": index},
    ).all()
    for name in left:
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


# Analyzing a parent analyzes its partitions after it, before 18: hence the ten minutes.
_NEEDS = """
WITH tables AS (
    SELECT c.oid, c.relkind, n.nspname, c.relname, s.n_dead_tup, s.n_mod_since_analyze,
           s.n_ins_since_vacuum, greatest(c.reltuples, s.n_live_tup, 0) AS rows,
           greatest(s.last_analyze, s.last_autoanalyze) AS analyzed,
           pg_has_role(c.relowner, 'USAGE') OR CASE
               WHEN current_setting('server_version_num')::int >= 170000
               THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END AS may
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE n.nspname = ANY(:schemas) AND (c.relkind = 'r' OR c.relkind = 'p' AND NOT c.relispartition)
), needs AS (
    SELECT t.*, CASE
        WHEN relkind = 'r' AND n_dead_tup > :rows + :share * rows THEN n_dead_tup || ' dead rows'
        WHEN relkind = 'r' AND n_ins_since_vacuum > 1000 + 0.2 * rows
        THEN n_ins_since_vacuum || ' new rows since the last vacuum'
        WHEN relkind = 'r' AND :everything THEN 'asked for' END AS to_vacuum,
    CASE
        WHEN relkind = 'r' AND rows > :rows AND analyzed IS NULL THEN 'never analyzed'
        WHEN relkind = 'r' AND n_mod_since_analyze > :rows + :share * rows
        THEN n_mod_since_analyze || ' rows changed since its statistics'
        WHEN relkind = 'p' AND (:everything OR EXISTS (
            SELECT FROM pg_partition_tree(t.oid) p JOIN pg_stat_all_tables l ON l.relid = p.relid
            WHERE p.isleaf AND l.n_live_tup > 0 AND (
                t.analyzed IS NULL
                OR greatest(l.last_analyze, l.last_autoanalyze) > t.analyzed + interval '10 minutes')
        )) THEN 'its partitions are newer than its statistics' END AS to_analyze
    FROM tables t
)
SELECT CASE WHEN to_vacuum IS NULL THEN 'analyze' ELSE 'vacuum' END AS kind,
       format('%I.%I', nspname, relname) AS target, coalesce(to_vacuum, to_analyze) AS reason, may
FROM needs WHERE to_vacuum IS NOT NULL OR to_analyze IS NOT NULL
ORDER BY relkind DESC, nspname, relname
"""
