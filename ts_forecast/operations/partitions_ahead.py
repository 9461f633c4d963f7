"""Partitions before they are needed: of the running period, of the next ones, of rows in a default.

Run every day by the schedule ``database_maintenance``, or by ``ts-forecast db partitions create``. A table
that is in use is tried for some seconds, and then left to the next time: nothing is lost meanwhile, for
the default partition takes its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection, Engine

from ts_forecast.db import partitions
from ts_forecast.db.calendar_partitions import (
    TABLES,
    CalendarTable,
    create,
    exists,
    is_partition,
    periods_in_default,
)
from ts_forecast.db.engine import exclusive
from ts_forecast.db.periods import Period, periods
from ts_forecast.db.short_locks import with_short_locks
from ts_forecast.quarters import Quarter

AHEAD = {1: 3, 3: 2}
"""How many periods of so many months are made after the running one: three months, two quarters."""


@dataclass(frozen=True)
class MissingPartition:
    """A period without a partition.

    Attributes:
        name: with its schema.
    """

    table: CalendarTable
    period: Period
    name: str


@dataclass(frozen=True)
class CreatedPartition:
    """A partition that was made.

    Attributes:
        moved_rows: those that had fallen into the default partition.
    """

    table: str
    name: str
    start: datetime
    end: datetime
    moved_rows: int


def missing_partitions(
    connection: Connection,
    *,
    tables: Sequence[CalendarTable] = TABLES,
    until: datetime | None = None,
    now: datetime | None = None,
) -> list[MissingPartition]:
    """What ``ensure_ahead`` would make; of a table that is not there, nothing.

    Args:
        until: the last moment that has to have a partition; None: ``AHEAD`` of each table.
    """
    now = now or datetime.now(UTC)
    return [
        MissingPartition(table, period, f"{table.schema}.{table.partition(period)}")
        for table in tables
        if exists(connection, table.qualified)
        for period in _wanted(connection, table, now, until)
        if not is_partition(connection, f"{table.schema}.{table.partition(period)}")
    ]


def ensure_ahead(
    engine: Engine,
    *,
    tables: Sequence[CalendarTable] = TABLES,
    until: datetime | None = None,
    now: datetime | None = None,
) -> Iterator[CreatedPartition]:
    """Make the missing partitions, each in a transaction of its own; safe beside any other session.

    Args: as ``missing_partitions``.

    Raises:
        LockedError: a table stays in use; those made before stand.
    """
    with engine.connect() as connection:
        missing = missing_partitions(connection, tables=tables, until=until, now=now)
    for one in missing:
        moved = _make(engine, one)
        if moved is not None:
            yield CreatedPartition(
                one.table.qualified, one.name, one.period.start, one.period.end, moved
            )


def ensure_quarter(engine: Engine, quarter: Quarter) -> None:
    """Make a quarter's partition of predictions, if it is absent; commits.

    Raises:
        LockedError: predictions stays in use.
    """
    name = partitions.quarter_table(quarter)

    def make(work: Connection) -> None:
        if not partitions.is_attached(work, name):
            partitions.lock_for_change(work, "SHARE ROW EXCLUSIVE")
            partitions.ensure_quarter(work, quarter)

    # The lock under which publishing makes it.
    with exclusive(engine, "quarter", name):
        with_short_locks(engine, make, subject=f"public.{partitions.PARENT}")


def _wanted(
    connection: Connection, table: CalendarTable, now: datetime, until: datetime | None
) -> list[Period]:
    first = Period.of(now, table.months)
    last = first.shift(AHEAD[table.months]) if until is None else Period.of(until, table.months)
    # Rows of later periods wait for their time: a wrong year must not make a hundred partitions.
    astray = [period for period in periods_in_default(connection, table) if period <= last]
    return sorted({*periods(first, last), *astray})


def _make(engine: Engine, missing: MissingPartition) -> int | None:
    table, period = missing.table, missing.period
    if table.leaves:
        ensure_quarter(engine, Quarter(period.year, period.number))
        return 0
    with exclusive(engine, "partitions", table.qualified):
        return with_short_locks(
            engine, partial(create, table=table, period=period), subject=table.qualified
        )
