"""Partitions that readers no longer see: into the schema ``archive``, back again, or dropped for good.

The rows stay as they are, with their keys and their references: an experiment that is deleted takes its
archived forecasts along. ``archive.partitions`` is the catalogue; a table there that has no row in it is
somebody else's and left alone. A slice that was archived may be published anew; it takes another leaf.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from ts_forecast.db import calendar_partitions as ddl
from ts_forecast.db import partitions
from ts_forecast.db.engine import exclusive, transaction
from ts_forecast.db.partition_list import Partition, span_of
from ts_forecast.db.periods import Period
from ts_forecast.db.short_locks import lock_tables, with_short_locks
from ts_forecast.errors import DatabaseError
from ts_forecast.operations.archive_catalogue import Archived, calendar_table, read_row
from ts_forecast.operations.partitions_ahead import ensure_quarter
from ts_forecast.quarters import Quarter
from ts_forecast.tables import ArchivedPartition

_NAME = re.compile(r"[a-z]+\.[a-z0-9_]+")
_BOUNDS = re.compile(r"FOR VALUES (IN \('\d+'\)|FROM \('[-0-9 :+]+'\) TO \('[-0-9 :+]+'\))")
_LIST = "See `ts-forecast db partitions list`."


def archive(engine: Engine, partition: Partition, *, reason: str) -> Archived:
    """Detach a partition and put it into the archive, at once or not at all; commits.

    Raises:
        LockedError: its table stays in use; it is attached still.
    """
    with exclusive(engine, *_lock_of(partition.table, partition.name)):
        row_id = with_short_locks(
            engine,
            partial(_detach, partition=partition, reason=reason),
            subject=partition.table,
        )
    # Nobody writes to it now; counting before would count under the lock, or miss the last rows.
    with transaction(engine) as session:
        row = session.get_one(ArchivedPartition, row_id)
        row.row_count = session.scalar(text(f"SELECT count(*) FROM archive.{row.table_name}"))
        session.flush()
        return read_row(row)


def restore(engine: Engine, archived: Archived) -> str:
    """Attach it again, with all of its rows; its name. Commits.

    Rows of its period that fell into the default partition since are moved into it.

    Raises:
        DatabaseError: another partition has taken its place, or the catalogue's line is not ours.
        LockedError: its table stays in use; it is in the archive still.
    """
    table, name = calendar_table(archived.table), _checked_name(archived)
    with exclusive(engine, *_lock_of(archived.table, archived.was)):
        with engine.connect() as connection:
            _refuse_taken(connection, archived)
        if table.leaves:
            ensure_quarter(engine, _quarter(archived))
        else:
            # Before, for it reads all rows.
            check = partial(ddl.check_bounds, table=table, qualified=name, bounds=_span(archived))
            with_short_locks(engine, check, subject=name)
        with_short_locks(engine, partial(_attach, archived=archived), subject=table.qualified)
    return archived.was


def drop_archived(engine: Engine, archived: Archived) -> None:
    """Drop a partition of the archive; its rows are gone, its line in the catalogue stays. Commits.

    Raises:
        LockedError: somebody reads it, or writes to a table that it refers to.
    """
    name = _checked_name(archived)
    with_short_locks(
        engine, partial(ddl.drop_references, qualified=name), subject=f"What {name} refers to"
    )
    # Apart: a commit that deletes files takes its time, and nobody should wait for it.
    with_short_locks(engine, partial(_drop, archived=archived), subject=name)


def _checked_name(archived: Archived) -> str:
    """Its name with the schema; what stands in the catalogue becomes part of statements."""
    if not all(
        pattern.fullmatch(part)
        for pattern, part in (
            (_NAME, f"archive.{archived.name}"),
            (_NAME, archived.was),
            (_BOUNDS, archived.bounds),
        )
    ):
        raise DatabaseError(
            f"archive.partitions holds a line that is not ours: {archived.name}.", remedy=_LIST
        )
    return f"archive.{archived.name}"


def _detach(connection: Connection, partition: Partition, reason: str) -> int:
    if not ddl.is_partition(connection, partition.name):
        raise DatabaseError(f"{partition.name} is no partition any more.", remedy=_LIST)
    old = partition.name.partition(".")[2]
    name, number = old, 1
    while ddl.exists(connection, f"archive.{name}"):
        number += 1
        name = f"{old}_{number}"
    ddl.detach(connection, calendar_table(partition.table), partition.parent, partition.name)
    ddl.move(connection, partition.name, ddl.ARCHIVE, name)
    with Session(connection) as session:
        row = ArchivedPartition(
            table_name=name,
            parent_table=partition.parent,
            bounds=partition.bounds,
            size_bytes=partition.size_bytes,
            detached_by=_author(connection),
            metadata_={"table": partition.table, "was": partition.name, "reason": reason},
        )
        session.add(row)
        session.flush()
        return row.archived_partition_id


def _attach(connection: Connection, archived: Archived) -> None:
    _refuse_taken(connection, archived)
    table = calendar_table(archived.table)
    schema, _, name = archived.was.partition(".")
    ddl.move(connection, f"archive.{archived.name}", schema, name)
    if table.leaves:
        parent = f"{schema}.{partitions.quarter_table(_quarter(archived))}"
        locks = ddl.referenced(connection, parent, brings=archived.was)
        lock_tables(connection, [*locks, (parent, "SHARE UPDATE EXCLUSIVE")])
        connection.execute(
            text(f"ALTER TABLE {parent} ATTACH PARTITION {archived.was} {archived.bounds}")
        )
    else:
        ddl.attach(connection, table, archived.was, _span(archived))
    connection.execute(
        text("DELETE FROM archive.partitions WHERE archived_partition_id = :id"),
        {"id": archived.archived_partition_id},
    )


def _drop(connection: Connection, archived: Archived) -> None:
    connection.execute(text(f"DROP TABLE IF EXISTS archive.{archived.name}"))
    with Session(connection) as session:
        row = session.get_one(ArchivedPartition, archived.archived_partition_id)
        row.dropped_at = datetime.now(UTC)
        row.metadata_ = {**(row.metadata_ or {}), "dropped_by": _author(connection)}
        session.flush()


def _author(connection: Connection) -> str:
    """As the audit names it: the application's user, else the login."""
    query = "SELECT coalesce(nullif(current_setting('app.current_user', true), ''), session_user)"
    return str(connection.scalar(text(query)))


def _refuse_taken(connection: Connection, archived: Archived) -> None:
    if ddl.exists(connection, archived.was):
        raise DatabaseError(
            f"{archived.was} was made again since archive.{archived.name} was archived.",
            remedy=f"Archive {archived.was} first, or drop archive.{archived.name}.",
        )


def _lock_of(table: str, name: str) -> tuple[str, str]:
    """The advisory lock under which it changes: of a slice, the one that its writers take."""
    is_slice = calendar_table(table).leaves
    return ("slice", name.partition(".")[2]) if is_slice else ("partitions", table)


def _span(archived: Archived) -> tuple[str, str]:
    span = span_of(archived.bounds)
    if span is None:
        raise DatabaseError(f"The bounds of archive.{archived.name} are no range.", remedy=_LIST)
    return span


def _quarter(archived: Archived) -> Quarter:
    # predictions_2025_q1_e12
    parts = archived.was.partition(".")[2].removeprefix(f"{partitions.PARENT}_").split("_")
    period = Period.parse(f"{parts[0]}-{parts[1]}", 3)
    return Quarter(period.year, period.number)
