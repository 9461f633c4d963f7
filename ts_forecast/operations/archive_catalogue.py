"""What lies in the archive, by its catalogue ``archive.partitions``; and what may go there.

Putting partitions in, taking them out and dropping them is ``partition_archive``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from ts_forecast.db.calendar_partitions import TABLES, CalendarTable
from ts_forecast.db.partition_list import Partition, all_attached
from ts_forecast.errors import DatabaseError
from ts_forecast.tables import ArchivedPartition

_LIST = "See `ts-forecast db partitions list`."


@dataclass(frozen=True)
class Archived:
    """A partition in the archive.

    Attributes:
        name: in the schema ``archive``.
        was: its name while it was attached, with the schema.
        table: what it was a part of, e.g. ``public.predictions``.
        rows: None for the moment between its detaching and its counting.
    """

    archived_partition_id: int
    name: str
    was: str
    table: str
    bounds: str
    rows: int | None
    size_bytes: int
    detached_at: datetime
    detached_by: str | None
    dropped_at: datetime | None


def find_attached(connection: Connection, names: list[str]) -> list[Partition]:
    """Attached partitions by name, with or without the schema; a quarter's name: all of its slices.

    Raises:
        DatabaseError: there is no such partition, or logs are written to it: its period has not ended,
            or it is the default partition.
    """
    there = all_attached(connection)
    now = datetime.now(UTC)
    found = []
    for name in names:
        hits = [part for part in there if name in _names(part.name) or name in _names(part.parent)]
        if not hits:
            raise DatabaseError(f"No attached partition is named {name}.", remedy=_LIST)
        for part in hits:
            if calendar_table(part.table).has_default and (part.end is None or part.end > now):
                raise DatabaseError(f"{part.name} is written to still.", remedy=_LIST)
        found += hits
    return list(dict.fromkeys(found))


def may_see_archive(connection: Connection) -> bool:
    """Whether the role may read the catalogue; readers of the tables may not."""
    # AND does not keep the second from being asked first, and it fails without the schema's right.
    query = (
        "SELECT CASE WHEN has_schema_privilege('archive', 'USAGE') "
        "THEN has_table_privilege('archive.partitions', 'SELECT') ELSE false END"
    )
    return bool(connection.scalar(text(query)))


def list_archived(session: Session, *, with_dropped: bool = False) -> list[Archived]:
    """The catalogue, oldest first."""
    query = select(ArchivedPartition).order_by(
        ArchivedPartition.detached_at, ArchivedPartition.table_name
    )
    if not with_dropped:
        query = query.where(ArchivedPartition.dropped_at.is_(None))
    return [read_row(row) for row in session.scalars(query)]


def older_than_days(
    archived: list[Archived], days: int, *, now: datetime | None = None
) -> list[Archived]:
    """Those that have been in the archive for so many days."""
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    return [one for one in archived if one.dropped_at is None and one.detached_at <= before]


def find_archived(archived: list[Archived], names: list[str]) -> list[Archived]:
    """Partitions of the archive by the name there or the one before.

    Raises:
        DatabaseError: there is none of that name, or there are several.
    """
    found = []
    for name in names:
        hits = [one for one in archived if name in (*_names(f"archive.{one.name}"), one.was)]
        if not hits:
            raise DatabaseError(f"No archived partition is named {name}.", remedy=_LIST)
        if len(hits) > 1:
            names_ = ", ".join(f"archive.{one.name}" for one in hits)
            raise DatabaseError(f"Several were {name}: {names_}.", remedy="Name one of these.")
        found += hits
    return list(dict.fromkeys(found))


def read_row(row: ArchivedPartition) -> Archived:
    """A line of the catalogue."""
    metadata = row.metadata_ or {}
    return Archived(
        archived_partition_id=row.archived_partition_id,
        name=row.table_name,
        was=metadata.get("was", f"public.{row.table_name}"),
        table=metadata.get("table", row.parent_table),
        bounds=row.bounds,
        rows=row.row_count,
        size_bytes=row.size_bytes or 0,
        detached_at=row.detached_at,
        detached_by=row.detached_by,
        dropped_at=row.dropped_at,
    )


def calendar_table(qualified: str) -> CalendarTable:
    """The table of that name.

    Raises:
        DatabaseError: it is not cut by the calendar.
    """
    for table in TABLES:
        if table.qualified == qualified:
            return table
    raise DatabaseError(f"{qualified} is not cut by the calendar.", remedy=_LIST)


def _names(qualified: str) -> tuple[str, str]:
    return qualified, qualified.partition(".")[2]
