"""What a warning costs its caller: microseconds a record, ours beside the standard library's.

``python -m benchmarks.log_cost --help``. Each row is one way to log, each figure the median over the
records; the database is the embedded PostgreSQL in a temporary folder. The handlers' own threads work
meanwhile, as they do in a deployment. The last rows are a database that is away and a full queue.
"""

import logging
import logging.handlers
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from ts_forecast.db import migrate
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import stop_embedded
from ts_forecast.db.engine import create_engine
from ts_forecast.logs.database import DatabaseHandler
from ts_forecast.logs.files import SharedFileHandler
from ts_forecast.logs.formatters import JsonFormatter
from ts_forecast.logs.masking import Masker
from ts_forecast.logs.records import Fields
from ts_forecast.logs.rows import write_rows
from ts_forecast.settings import Settings, load_settings

_PAUSE_SECONDS = 0.0005


def measure(handler: logging.Handler, records: int) -> tuple[float, float]:
    """Median and 99th percentile of the microseconds that ``warning`` takes."""
    logger = logging.getLogger("benchmark")
    logger.propagate = False
    logger.addHandler(handler)
    times = []
    for number in range(records):
        begun = time.perf_counter()
        logger.warning("Run %d could not be recorded: %s", number, "connection lost")
        times.append((time.perf_counter() - begun) * 1e6)
        # As warnings come: not one upon the other, or the interpreter's lock would be measured.
        time.sleep(_PAUSE_SECONDS)
    logger.removeHandler(handler)
    handler.close()
    return statistics.median(times), statistics.quantiles(times, n=100)[-1]


def ways(folder: Path, settings: Settings, url: str) -> dict[str, Callable[[], logging.Handler]]:
    """Ways to log, by what they are called."""
    mask = Masker.of(settings)

    def standard() -> logging.Handler:
        handler = logging.handlers.RotatingFileHandler(folder / "standard.log", maxBytes=10_000_000)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        return handler

    def ours() -> logging.Handler:
        handler = SharedFileHandler(folder)
        handler.setFormatter(JsonFormatter(mask))
        return handler

    def write(engine: Engine, batch: list[Fields]) -> int:
        return write_rows(engine, batch, "benchmark")

    def away() -> Engine:
        raise ConnectionError("refused")

    return {
        "no handler to speak of": logging.NullHandler,
        "RotatingFileHandler, text, one process": standard,
        "our file, JSON, many processes": ours,
        "our system_logs": lambda: DatabaseHandler(lambda: create_engine(url), write, mask),
        "our system_logs, database away": lambda: DatabaseHandler(away, write, mask),
        "our system_logs, queue full": lambda: DatabaseHandler(away, write, mask, capacity=0),
    }


def main(records: Annotated[int, typer.Option(help="Records of each way.")] = 4000) -> None:
    """Measure and print."""
    table = Table("way", "median µs", "99th percentile µs")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        settings = load_settings(home=Path(name, "home"), database_url=None)
        database = open_database(settings)
        migrate.upgrade(database.engine)
        database.dispose()
        for way, make in ways(Path(name), settings, database.url.get_secret_value()).items():
            median, high = measure(make(), records)
            table.add_row(way, f"{median:.1f}", f"{high:.1f}")
        stop_embedded(settings)
    Console().print(table)
    Console().print(
        f"{records} records each; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    typer.run(main)
