"""Setting logging up in a process, once: the command line, Dagster's code location and its steps.

Handlers stand on the root logger, which hears what libraries warn of; levels are set for our own loggers
only. Handlers of others stay as they are: Dagster's event log shows what it has always shown.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ts_forecast.logs.database import DatabaseHandler
from ts_forecast.logs.files import LastResort, SharedFileHandler
from ts_forecast.logs.formatters import JsonFormatter, TextFormatter
from ts_forecast.logs.masking import Masker
from ts_forecast.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ts_forecast.logs.records import Fields

OURS = ("ts_forecast", "resources", "assets")
"""The loggers whose level is LOG_LEVEL; all others keep Python's WARNING, or what was set for them."""

_installed: list[logging.Handler] = []


def install(settings: Settings) -> None:
    """Send this process's records to the log file, to ``system_logs`` and, at last, to stderr.

    Again, it takes the place of what it did before. Makes and opens nothing before the first record.
    """
    uninstall()
    mask = Masker.of(settings)
    plain, machine = TextFormatter(mask), JsonFormatter(mask)
    written = machine if settings.log_format == "json" else plain
    last = LastResort(_installed)
    last.setFormatter(plain if sys.stderr is not None and sys.stderr.isatty() else written)
    _installed.append(last)
    file = SharedFileHandler(settings.log_dir)
    file.setFormatter(written)
    _installed.append(file)
    if settings.log_to_database:
        _installed.append(DatabaseHandler(_opener(settings), _writer(settings), mask))
    for handler in _installed:
        handler.setLevel(max(handler.level, logging.getLevelNamesMapping()[settings.log_level]))
        logging.getLogger().addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level)


def uninstall() -> None:
    """Take the handlers away again, flushed and closed."""
    for handler in _installed:
        logging.getLogger().removeHandler(handler)
        handler.close()
    _installed.clear()


def rest() -> None:
    """Leave no thread and no connection behind, as a process that forks must; a record revives them."""
    for handler in _installed:
        if isinstance(handler, DatabaseHandler):
            handler.close()


def _opener(settings: Settings) -> Callable[[], Engine | None]:
    def open_engine() -> Engine | None:
        # In the thread of the writer: who logs nothing pays for no import.
        from ts_forecast.db.embedded import running_embedded
        from ts_forecast.db.engine import create_engine

        given = settings.database_url
        # A log record is no reason to start a server.
        url = given.get_secret_value() if given is not None else running_embedded(settings)
        if url is None:
            return None
        return create_engine(url, settings, application_name="ts-forecast logs")

    return open_engine


def _writer(settings: Settings) -> Callable[[Engine, list[Fields]], int]:
    def write(engine: Engine, batch: list[Fields]) -> int:
        from ts_forecast.logs.rows import write_rows

        return write_rows(engine, batch, settings.user)

    return write
