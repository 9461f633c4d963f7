"""After steps were lost: no row of ``runs`` may say that they still run.

For executors, once the processes of their steps have ended.
"""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from ts_forecast.db.database import open_database
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import TsForecastError
from ts_forecast.settings import Settings
from ts_forecast.tracking import lost_runs

_log = logging.getLogger(__name__)


def end_lost_runs(settings: Settings) -> None:
    """Call the runs killed whose process is gone; a database that is away costs no more than a warning."""
    try:
        database = open_database(settings)
        try:
            killed = in_transaction(database.engine, lost_runs.end_lost_runs)
        finally:
            database.dispose()
    except (TsForecastError, SQLAlchemyError) as error:
        _log.warning("Runs that were killed may still stand as running: %s", error)
        return
    if killed:
        _log.warning("Runs %s were killed.", ", ".join(map(str, killed)))
