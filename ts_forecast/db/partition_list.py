"""Which partitions there are: attached to their parent, or kept in the schema ``archive``.

Reading only; making and moving them is ``calendar_partitions``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from ts_forecast.db.calendar_partitions import TABLES, CalendarTable

_RANGE = re.compile(r"FROM \('([^']+)'\) TO \('([^']+)'\)")


@dataclass(frozen=True)
class Partition:
    """An attached partition: of a month, of a quarter, or a pipeline's of a quarter.

    Attributes:
        table: what it is a part of, e.g. ``public.predictions``.
        parent: what it is attached to; of a slice, the quarter's partition.
        name: with its schema.
        bounds: as ATTACH takes them.
        start, end: half-open, UTC; None of a default partition or an unbounded one.
    """

    table: str
    parent: str
    name: str
    bounds: str
    start: datetime | None
    end: datetime | None
    is_default: bool
    rows: int
    size_bytes: int


def attached(
    connection: Connection, table: CalendarTable, *, with_empty: bool = False
) -> list[Partition]:
    """The partitions of a table that hold rows, by name; none if the table is not there.

    Args:
        with_empty: quarters that have no slice yet, too.
    """
    query = text(
        """
        SELECT pn.nspname || '.' || parent.relname AS parent,
               n.nspname || '.' || c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds,
               pg_get_expr(parent.relpartbound, parent.oid) AS parent_bounds,
               (CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE coalesce(s.n_live_tup, 0)
                END)::bigint AS rows,
               pg_total_relation_size(c.oid) AS size_bytes, c.relkind = 'p' AS is_empty
        FROM pg_class root JOIN pg_namespace rn ON rn.oid = root.relnamespace
        CROSS JOIN LATERAL pg_partition_tree(root.oid) tree
        JOIN pg_class c ON c.oid = tree.relid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class parent ON parent.oid = tree.parentrelid
        JOIN pg_namespace pn ON pn.oid = parent.relnamespace
        LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
        WHERE rn.nspname = :schema AND root.relname = :table AND (
            tree.isleaf AND c.relkind = 'r'
            OR :with_empty AND tree.level = 1 AND c.relkind = 'p'
               AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid))
        ORDER BY name
        """
    )
    found = []
    values = {"schema": table.schema, "table": table.name, "with_empty": with_empty}
    for row in connection.execute(query, values):
        start, end = _span(row.parent_bounds if table.leaves and not row.is_empty else row.bounds)
        found.append(
            Partition(
                table.qualified,
                row.parent,
                row.name,
                row.bounds,
                start,
                end,
                row.bounds == "DEFAULT",
                row.rows,
                row.size_bytes,
            )
        )
    return found


def all_attached(connection: Connection) -> list[Partition]:
    """The leaves of every table that is cut by the calendar."""
    return [partition for table in TABLES for partition in attached(connection, table)]


def span_of(bounds: str) -> tuple[str, str] | None:
    """The texts of a range's two ends; None of a list, a default or an unbounded range."""
    match = _RANGE.search(bounds)
    return (match[1], match[2]) if match else None


def _span(bounds: str | None) -> tuple[datetime | None, datetime | None]:
    texts = span_of(bounds or "")
    if texts is None:
        return None, None
    start, end = (_moment(part) for part in texts)
    return start, end


def _moment(shown: str) -> datetime | None:
    # As a session that speaks UTC is shown it; a TIMESTAMP has no zone.
    try:
        moment = datetime.fromisoformat(shown)
    except ValueError:  # infinity, or before Christ
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
