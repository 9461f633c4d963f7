"""How long rows stay where readers see them, and which partitions are past that.

Days, in ``system_config``: ``default_retention_days`` (90 as the migrations leave it) holds for
system_logs; ``audit_retention_days`` and ``predictions_retention_days`` hold for audit.audit_logs and
predictions where somebody has set them. Without a row, or with 0, a table keeps everything: an audit
trail and forecasts are not thrown away by default. What is past is archived, never dropped.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from ts_forecast.db.calendar_partitions import AUDIT_LOGS, PREDICTIONS, SYSTEM_LOGS, CalendarTable
from ts_forecast.db.partition_list import Partition, attached
from ts_forecast.errors import SettingsError

KEYS = {
    SYSTEM_LOGS.qualified: "default_retention_days",
    AUDIT_LOGS.qualified: "audit_retention_days",
    PREDICTIONS.qualified: "predictions_retention_days",
}


def retention_days(connection: Connection, table: CalendarTable) -> int | None:
    """For how many days after its end a partition stays attached; None: for ever.

    Raises:
        SettingsError: the value in system_config is no whole number of days.
    """
    key = KEYS[table.qualified]
    value = connection.scalar(
        text("SELECT config_value FROM system_config WHERE config_key = :key"), {"key": key}
    )
    try:
        days = int(value) if value is not None else 0
        if days < 0:
            raise ValueError(days)
    except ValueError:
        raise SettingsError(
            f"{key} in system_config is {value!r}.",
            remedy="Write a whole number of days there; 0 keeps everything.",
        ) from None
    return days or None


def expired(
    connection: Connection, table: CalendarTable, *, days: int | None, now: datetime | None = None
) -> list[Partition]:
    """The attached partitions that ended so many days ago, oldest first; none for ``None``."""
    if days is None:
        return []
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    past = [
        part for part in attached(connection, table) if part.end is not None and part.end <= before
    ]
    return sorted(past, key=lambda part: (part.end or before, part.name))
