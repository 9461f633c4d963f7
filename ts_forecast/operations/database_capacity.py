"""The monthly capacity report: sizes, growth since the reports before, and when a disk is full.

Each report's figures are kept as one row of system_logs (source ``ts_forecast.capacity``, the figures in
``extra_data``): whoever asks next, from whatever machine, compares with them, they are in every backup,
and they go when logs go (90 days, three monthly reports). A file would be one machine's; a table of its
own, one more for a row a month.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from ts_forecast.db.calendar_partitions import PREDICTIONS
from ts_forecast.db.partition_list import attached
from ts_forecast.operations.database_tables import table_states
from ts_forecast.tables import SystemLog

SOURCE = "ts_forecast.capacity"
_TOP = 10
# Growth over less than a day says nothing of a month.
_LEAST_SECONDS = 86_400.0


@dataclass(frozen=True)
class TableSize:
    """A table with its partitions, indexes and all."""

    table: str
    rows: int
    total_bytes: int


@dataclass(frozen=True)
class SliceSize:
    """The forecasts of a pipeline for a quarter."""

    pipeline: str
    quarter: str
    rows: int
    total_bytes: int


@dataclass(frozen=True)
class CapacityReport:
    """What the database takes up, by table and by slice."""

    at: datetime
    database_bytes: int
    tables: list[TableSize]
    slices: list[SliceSize]


@dataclass(frozen=True)
class Growth:
    """Against an earlier report.

    Attributes:
        since: when that was.
        tables: bytes that each table has grown by, those that changed.
        bytes_per_day: over all reports on record, by least squares; None within the first day.
    """

    since: datetime
    bytes: int
    tables: dict[str, int]
    bytes_per_day: float | None

    def full_at(self, report: CapacityReport, capacity_bytes: int) -> datetime | None:
        """When the database alone would fill so many bytes; None if it does not grow."""
        if report.database_bytes >= capacity_bytes:
            return report.at
        if self.bytes_per_day is None or self.bytes_per_day <= 0:
            return None
        days = (capacity_bytes - report.database_bytes) / self.bytes_per_day
        return report.at + timedelta(days=min(days, 365_000))


def capacity_report(connection: Connection, *, now: datetime | None = None) -> CapacityReport:
    """Measure now."""
    size = connection.scalar(text("SELECT pg_database_size(current_database())"))
    states = table_states(connection)
    return CapacityReport(
        at=now or datetime.now(UTC),
        database_bytes=int(size or 0),
        tables=[TableSize(state.table, state.rows, state.total_bytes) for state in states],
        slices=_slices(connection),
    )


def keep_report(session: Session, report: CapacityReport) -> None:
    """Put the report on record, for the next ones to compare with."""
    session.add(
        SystemLog(
            log_level="INFO",
            log_message=f"The database takes {report.database_bytes} bytes.",
            log_source=SOURCE,
            extra_data={
                "database_bytes": report.database_bytes,
                "tables": {size.table: size.total_bytes for size in report.tables},
                "slices": [asdict(size) for size in report.slices],
            },
            created_at=report.at,
        )
    )


def growth(session: Session, report: CapacityReport) -> Growth | None:
    """Against the reports on record; None for the first one."""
    past = session.execute(
        select(SystemLog.created_at, SystemLog.extra_data)
        .where(SystemLog.log_source == SOURCE, SystemLog.created_at < report.at)
        .order_by(SystemLog.created_at)
    ).all()
    if not past:
        return None
    since, figures = past[-1]
    before = (figures or {}).get("tables", {})
    sizes = {size.table: size.total_bytes for size in report.tables}
    changes = {table: sizes.get(table, 0) - before.get(table, 0) for table in {*sizes, *before}}
    points = [(moment, int((data or {})["database_bytes"])) for moment, data in past]
    points.append((report.at, report.database_bytes))
    return Growth(
        since=since,
        bytes=report.database_bytes - points[-2][1],
        tables={table: change for table, change in sorted(changes.items()) if change},
        bytes_per_day=_slope(points),
    )


def top(report: CapacityReport) -> list[TableSize]:
    """The ten largest tables."""
    return report.tables[:_TOP]


def _slope(points: list[tuple[datetime, int]]) -> float | None:
    """Bytes a day of the line through the points."""
    seconds = [(moment - points[0][0]).total_seconds() for moment, _ in points]
    if seconds[-1] < _LEAST_SECONDS:
        return None
    middle = sum(seconds) / len(points)
    mean = sum(size for _, size in points) / len(points)
    over = sum((x - middle) * (size - mean) for x, (_, size) in zip(seconds, points, strict=True))
    return over / sum((x - middle) ** 2 for x in seconds) * 86_400


def _slices(connection: Connection) -> list[SliceSize]:
    names = dict[int, str]()
    if connection.scalar(text("SELECT has_table_privilege('experiments', 'SELECT')")):
        rows = connection.execute(text("SELECT experiment_id, experiment_name FROM experiments"))
        names = {number: name for number, name in rows}
    sizes = []
    for leaf in attached(connection, PREDICTIONS):
        number = int(leaf.name.rpartition("_e")[2])
        quarter = f"{leaf.start.year}-Q{(leaf.start.month + 2) // 3}" if leaf.start else "?"
        # A name that the role may not see stays a number.
        pipeline = names.get(number, f"experiment {number}")
        sizes.append(SliceSize(pipeline, quarter, leaf.rows, leaf.size_bytes))
    return sorted(sizes, key=lambda size: (size.pipeline, size.quarter))
