"""Sizes, rows and upkeep of the tables; partitions are rolled up under their parent.

What is done about it is ``database_maintenance``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ts_forecast.operations.database_scope import SCOPE


@dataclass(frozen=True)
class TableState:
    """A table with all of its partitions, or a materialized view.

    Attributes:
        table: with its schema, e.g. ``public.runs``.
        partitions: how many leaves it has; 0 for a table of its own.
        rows, dead_rows: the server's estimates, as of the last analyze.
        last_vacuum, last_analyze: the oldest of its leaves, by hand or not; None if one never was.
    """

    table: str
    partitions: int
    rows: int
    dead_rows: int
    table_bytes: int
    index_bytes: int
    total_bytes: int
    last_vacuum: datetime | None
    last_analyze: datetime | None

    @property
    def dead_ratio(self) -> float:
        """Share of dead rows."""
        return self.dead_rows / max(self.rows + self.dead_rows, 1)


def table_states(connection: Connection, *, rolled_up: bool = True) -> list[TableState]:
    """Every table of ours, the largest first.

    Args:
        rolled_up: False: each partition by itself.
    """
    root = "coalesce(pg_partition_root(c.oid), c.oid)" if rolled_up else "c.oid"
    query = text(
        f"""
        SELECT format('%s.%s', n.nspname, r.relname) AS table, leaves.partitions, leaves.rows,
               leaves.dead_rows, leaves.table_bytes, leaves.index_bytes, leaves.total_bytes,
               leaves.last_vacuum, leaves.last_analyze
        FROM (
            SELECT {root} AS root,
                   count(*) FILTER (WHERE c.relispartition) AS partitions,
                   sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE s.n_live_tup END)::bigint
                   AS rows,
                   sum(coalesce(s.n_dead_tup, 0))::bigint AS dead_rows,
                   sum(pg_table_size(c.oid))::bigint AS table_bytes,
                   sum(pg_indexes_size(c.oid))::bigint AS index_bytes,
                   sum(pg_total_relation_size(c.oid))::bigint AS total_bytes,
                   CASE WHEN bool_and(greatest(s.last_vacuum, s.last_autovacuum) IS NOT NULL)
                        THEN min(greatest(s.last_vacuum, s.last_autovacuum)) END AS last_vacuum,
                   CASE WHEN bool_and(greatest(s.last_analyze, s.last_autoanalyze) IS NOT NULL)
                        THEN min(greatest(s.last_analyze, s.last_autoanalyze)) END AS last_analyze
            FROM pg_class c LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
            WHERE c.relkind IN ('r', 'm') GROUP BY 1
        ) leaves
        JOIN pg_class r ON r.oid = leaves.root JOIN pg_namespace n ON n.oid = r.relnamespace
        WHERE n.nspname = ANY(:schemas)
        ORDER BY leaves.total_bytes DESC, 1
        """
    )
    return [TableState(**row._mapping) for row in connection.execute(query, SCOPE)]
