"""How long rows stay where readers see them, and which partitions are past that.

Days, among the settings of the database (``ts-forecast config``): ``default_retention_days``, 90 as the
migrations leave it, holds for system_logs; ``audit_retention_days`` and ``predictions_retention_days`` hold
for audit.audit_logs and predictions where somebody has set them. Without a row, or with 0, a table keeps
everything: an audit trail and forecasts are not thrown away by default. What is past is archived, never
dropped.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from ts_forecast.configuration.values import get_value
from ts_forecast.db.calendar_partitions import AUDIT_LOGS, PREDICTIONS, SYSTEM_LOGS, CalendarTable
from ts_forecast.db.partition_list import Partition, attached
from ts_forecast.errors import ConfigurationError
from ts_forecast.tables import SystemConfig

KEYS = {
    SYSTEM_LOGS.qualified: "default_retention_days",
    AUDIT_LOGS.qualified: "audit_retention_days",
    PREDICTIONS.qualified: "predictions_retention_days",
}


def retention_days(connection: Connection, table: CalendarTable) -> int | None:
    """For how many days after its end a partition stays attached; None: for ever.

    Raises:
        ConfigurationError: the setting is no whole number of days.
    """
    key = KEYS[table.qualified]
    with Session(connection) as session:
        if session.scalar(select(SystemConfig).where(SystemConfig.config_key == key)) is None:
            return None
        value = get_value(session, key)
    # A new setting is a string, unless its type was given.
    days = str(value)
    if isinstance(value, bool) or not (days.isascii() and days.isdigit()):
        raise ConfigurationError(
            f"{key} is no number of days.",
            remedy=f"`ts-forecast config set {key} 90`, say; 0 keeps everything.",
        )
    return int(days) or None


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
