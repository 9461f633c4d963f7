"""Tables that are cut by the calendar: names, bounds and DDL of their partitions.

``predictions`` (quarters, in each a leaf a pipeline: ``partitions``), ``system_logs`` (months) and
``audit.audit_logs`` (quarters). Each function is one step of its caller's transaction; which partitions
are made, archived and dropped, and how often that is tried, is ``operations``' (``partitions_ahead``,
``partition_archive``).

Readers are not blocked: a table is made apart (LIKE) and attached, which shares the parent with readers and
writers; ``CREATE TABLE … PARTITION OF`` would shut them out. Of a default partition, ATTACH asks for all
(ACCESS EXCLUSIVE), so that it has to wait for those who have read it, and shows that it holds none of the
new partition's rows; those are moved over first, in the same transaction. Writers wait for it where the
period has begun.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from ts_forecast.db.periods import Months, Period
from ts_forecast.db.short_locks import Mode, lock_tables
from ts_forecast.errors import DatabaseError
from ts_forecast.quarters import YEARS

ARCHIVE = "archive"
_CLASS = (
    "SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname || '.' || c.relname = :name"
)


@dataclass(frozen=True)
class CalendarTable:
    """A table cut by the calendar.

    Attributes:
        column: the moment by which it is cut.
        has_default: rows of no partition go to ``<name>_default``.
        leaves: its partitions are cut again, by pipeline.
    """

    schema: str
    name: str
    column: str
    months: Months
    has_default: bool
    leaves: bool = False

    @property
    def qualified(self) -> str:
        """Its name with the schema."""
        return f"{self.schema}.{self.name}"

    @property
    def default(self) -> str:
        """The partition of rows that have no other."""
        return f"{self.qualified}_default"

    def partition(self, period: Period) -> str:
        """Name of a period's partition, without the schema: ``system_logs_2025_01``."""
        return f"{self.name}_{period.suffix}"


PREDICTIONS = CalendarTable("public", "predictions", "prediction_date", 3, False, leaves=True)
SYSTEM_LOGS = CalendarTable("public", "system_logs", "created_at", 1, True)
AUDIT_LOGS = CalendarTable("audit", "audit_logs", "created_at", 3, True)
TABLES = (PREDICTIONS, SYSTEM_LOGS, AUDIT_LOGS)


def exists(connection: Connection, qualified: str) -> bool:
    """Whether there is a table of that name."""
    # By the catalogue: to_regclass fails for a role that may not use the schema.
    query = text(f"SELECT EXISTS ({_CLASS})")
    return bool(connection.scalar(query, {"name": qualified}))


def is_partition(connection: Connection, qualified: str) -> bool:
    """Whether it is attached to a parent."""
    query = text(f"SELECT relispartition FROM ({_CLASS}) found")
    return bool(connection.scalar(query, {"name": qualified}))


def periods_in_default(connection: Connection, table: CalendarTable) -> list[Period]:
    """The periods of rows that fell into the default partition, oldest first."""
    if not table.has_default or not exists(connection, table.default):
        return []
    unit = "month" if table.months == 1 else "quarter"
    rows = connection.scalars(
        text(
            f"SELECT DISTINCT date_trunc('{unit}', {table.column}) FROM {table.default} "
            # Not every moment of PostgreSQL's is one of Python's.
            f"WHERE {table.column} >= '{YEARS[0]}-01-01' AND {table.column} < '{YEARS[-1]}-01-01' "
            "ORDER BY 1"
        )
    )
    return [Period.of(moment, table.months) for moment in rows]


def create(connection: Connection, table: CalendarTable, period: Period) -> int | None:
    """Make and attach the period's partition; rows moved into it, None if it stands already.

    Raises:
        DatabaseError: there is a table of its name, which somebody detached.
    """
    qualified = f"{table.schema}.{table.partition(period)}"
    if is_partition(connection, qualified):
        return None
    if exists(connection, qualified):
        raise DatabaseError(
            f"The table {qualified} is there and no partition of {table.qualified}: somebody detached "
            "it.",
            remedy=f"ALTER TABLE {table.qualified} ATTACH PARTITION {qualified} FOR VALUES FROM "
            f"('{period.start}') TO ('{period.end}'); or rename it.",
        )
    bounds = _bounds(period)
    connection.execute(text(f"CREATE TABLE {qualified} (LIKE {table.qualified} INCLUDING ALL)"))
    check_bounds(connection, table, qualified, bounds)
    return attach(connection, table, qualified, bounds)


def check_bounds(
    connection: Connection, table: CalendarTable, qualified: str, bounds: tuple[str, str]
) -> None:
    """Give a detached table the CHECK by which attaching it scans nothing, if it has none."""
    name = f"ck_{table.name}_bounds"
    found = connection.scalar(
        text(
            "SELECT 1 FROM pg_constraint WHERE conrelid = to_regclass(:table) AND conname = :name"
        ),
        {"table": qualified, "name": name},
    )
    if found is None:
        connection.execute(
            text(
                f"ALTER TABLE {qualified} ADD CONSTRAINT {name} CHECK ({table.column} IS NOT NULL "
                f"AND {table.column} >= '{bounds[0]}' AND {table.column} < '{bounds[1]}')"
            )
        )


def attach(
    connection: Connection, table: CalendarTable, qualified: str, bounds: tuple[str, str]
) -> int:
    """Make a table the partition of these bounds; how many rows came from the default partition."""
    start, end = bounds
    has_default = table.has_default and exists(connection, table.default)
    # Most rows go over while everybody still sees them where they are: a DELETE that is not committed
    # shuts nobody out. What is done under the locks below is short, whatever lay in the default.
    moved = _take_from_default(connection, table, qualified, bounds) if has_default else 0
    # Who has chosen the default partition for a row, and waits for it, is refused when it may not have
    # the row any more. So whoever may write such a row waits at the parent, before choosing.
    has_begun = datetime.fromisoformat(start).astimezone(UTC) <= datetime.now(UTC)
    locks: list[tuple[str, Mode]] = [
        *referenced(connection, table.qualified, brings=qualified),
        (table.qualified, "SHARE ROW EXCLUSIVE" if has_begun else "SHARE UPDATE EXCLUSIVE"),
    ]
    if has_default:
        # The last one: while we hold it we wait for nothing more.
        locks.append((table.default, "ACCESS EXCLUSIVE"))
    lock_tables(connection, locks)
    if has_default:
        # Those that came meanwhile.
        moved += _take_from_default(connection, table, qualified, bounds)
    connection.execute(
        text(
            f"ALTER TABLE {table.qualified} ATTACH PARTITION {qualified} "
            f"FOR VALUES FROM ('{start}') TO ('{end}')"
        )
    )
    return moved


def detach(connection: Connection, table: CalendarTable, parent: str, qualified: str) -> None:
    """Take a partition out of readers' sight; shuts everybody out of the parent until the commit.

    DETACH … CONCURRENTLY would not, but PostgreSQL refuses it where there is a default partition, and
    within a transaction: a partition has to be either attached or in the archive.

    Args:
        parent: the table, or the quarter's partition of it.
    """
    locks: list[tuple[str, Mode]] = [*referenced(connection, parent)]
    locks += [(parent, "ACCESS EXCLUSIVE"), (qualified, "ACCESS EXCLUSIVE")]
    if table.has_default and exists(connection, table.default):
        locks.append((table.default, "ACCESS EXCLUSIVE"))
    lock_tables(connection, locks)
    connection.execute(text(f"ALTER TABLE {parent} DETACH PARTITION {qualified}"))


def move(connection: Connection, qualified: str, schema: str, name: str) -> None:
    """Rename a detached table, and put it and its indexes into another schema."""
    # Indexes share their schema's names with tables; an older one of the same name may lie there.
    clashing = connection.scalars(
        text(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "WHERE i.indrelid = to_regclass(:table) AND to_regclass(format('%I.%I', "
            "CAST(:schema AS text), c.relname)) IS NOT NULL"
        ),
        {"table": qualified, "schema": schema},
    ).all()
    own, _, old = qualified.partition(".")
    for index in clashing:
        unique = f"{name}_i{secrets.token_hex(4)}"
        connection.execute(text(f'ALTER INDEX {own}."{index}" RENAME TO {unique}'))
    if name == old:
        connection.execute(text(f"ALTER TABLE {qualified} SET SCHEMA {schema}"))
        return
    # The new name may be taken where it comes from, and the old one where it goes.
    passing = f"moving_{secrets.token_hex(8)}"
    connection.execute(text(f"ALTER TABLE {qualified} RENAME TO {passing}"))
    connection.execute(text(f"ALTER TABLE {own}.{passing} SET SCHEMA {schema}"))
    connection.execute(text(f"ALTER TABLE {schema}.{passing} RENAME TO {name}"))


def referenced(connection: Connection, parent: str, brings: str = "") -> list[tuple[str, Mode]]:
    """The tables that foreign keys refer to, with the mode that ATTACH and DETACH ask of them.

    Args:
        brings: a table that is to be attached; one that has foreign keys hands them to the parent, which
            takes all of what they refer to.
    """
    rows = connection.execute(
        text(
            "SELECT confrelid::regclass::text AS target, "
            "bool_or(conrelid = to_regclass(:brings)) AS is_handed_over FROM pg_constraint "
            "WHERE conrelid IN (to_regclass(:parent), to_regclass(:brings)) "
            "AND contype = 'f' GROUP BY 1"
        ),
        {"parent": parent, "brings": brings or parent},
    )
    return [
        (target, "ACCESS EXCLUSIVE" if brings and is_handed_over else "SHARE ROW EXCLUSIVE")
        # In the order of those who publish: models, runs, experiments.
        for target, is_handed_over in sorted(
            rows, key=lambda row: (row[0] == "experiments", row[0])
        )
    ]


def drop_references(connection: Connection, qualified: str) -> None:
    """Take a table's foreign keys away, so that dropping it locks nothing but itself."""
    names = connection.scalars(
        text(
            "SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = to_regclass(:table) "
            "AND contype = 'f'"
        ),
        {"table": qualified},
    ).all()
    if names:
        lock_tables(connection, referenced(connection, qualified, brings=qualified))
    for name in names:
        connection.execute(text(f"ALTER TABLE {qualified} DROP CONSTRAINT {name}"))


def _bounds(period: Period) -> tuple[str, str]:
    # A TIMESTAMP without a zone takes it for UTC and leaves the zone out.
    return period.start.isoformat(" "), period.end.isoformat(" ")


def _take_from_default(
    connection: Connection, table: CalendarTable, qualified: str, bounds: tuple[str, str]
) -> int:
    columns = _columns(connection, table)
    return connection.execute(
        text(
            f"WITH moved AS (DELETE FROM {table.default} WHERE {table.column} >= '{bounds[0]}' "
            f"AND {table.column} < '{bounds[1]}' RETURNING {columns}) "
            f"INSERT INTO {qualified} ({columns}) SELECT {columns} FROM moved"
        )
    ).rowcount


def _columns(connection: Connection, table: CalendarTable) -> str:
    names = connection.scalars(
        text(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = to_regclass(:table) "
            "AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        ),
        {"table": table.qualified},
    )
    return ", ".join(names)
