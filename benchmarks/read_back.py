"""What it takes to read a slice back into pandas, against a bare ADBC read of its table.

``python -m benchmarks.read_back --help``. Both read the same columns and end in a DataFrame, in turns;
the bare one opens ADBC itself and names the partition's table. ``pandas.read_sql`` has one turn beside.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from benchmarks.ground import DATABASE_HELP, forecasts, fresh_database, owners
from ts_forecast.db import partitions
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, publish_slice, read_slice
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2024, 1)
MODELS = (1, 2, 3)
QUERY = f"SELECT {', '.join(PREDICTION_SCHEMA.names)} FROM {partitions.leaf_table(QUARTER, 1)}"


def ours(engine: Engine) -> pd.DataFrame:
    return read_slice(engine, experiment_id=1, quarter=QUARTER).to_pandas()


def bare(engine: Engine) -> pd.DataFrame:
    import adbc_driver_postgresql.dbapi as adbc

    place = {key: value for key, value in engine.url.query.items() if key in ("host", "port")}
    address = engine.url.set(drivername="postgresql", query=place)
    with (
        adbc.connect(address.render_as_string(hide_password=False)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(QUERY)
        return cursor.fetch_arrow_table().to_pandas()


def with_pandas(engine: Engine) -> pd.DataFrame:
    with engine.connect() as connection:
        return pd.read_sql(text(QUERY), connection)


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the slice.")] = 1_000_000,
    series: Annotated[int, typer.Option(min=1, help="Series of the slice.")] = 1_000,
    quantiles: Annotated[int, typer.Option(min=1, help="Quantiles a row.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 7,
    read_sql: Annotated[bool, typer.Option(help="Whether read_sql has a turn (one).")] = True,
    database_url: Annotated[str | None, typer.Option(help=DATABASE_HELP)] = None,
) -> None:
    """Read a slice by every way and print the ratios to the bare ADBC read."""
    seconds: dict[str, list[float]] = {}

    def timed(name: str, read: Callable[[Engine], pd.DataFrame]) -> None:
        begun = time.monotonic()
        assert len(read(engine)) == rows
        seconds.setdefault(name, []).append(time.monotonic() - begun)

    with fresh_database(database_url) as engine:
        owners(engine, 1, len(MODELS))
        content = forecasts(QUARTER, rows, series=series, models=MODELS, quantiles=quantiles)
        publish_slice(engine, experiment_id=1, run_id=1, quarter=QUARTER, rows=content)
        del content
        for read in (bare, ours):
            read(engine)
        for _ in range(rounds):
            timed("bare ADBC read", bare)
            timed("read_slice", ours)
        if read_sql:
            timed("pandas.read_sql", with_pandas)
    table = Table(title=f"{rows:,} rows into pandas, median of {rounds}")
    for column in ("way", "s", "fastest", "ratio to ADBC"):
        table.add_column(column, justify="left" if column == "way" else "right")
    reference = statistics.median(seconds["bare ADBC read"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        table.add_row(name, f"{median:.2f}", f"{min(taken):.2f}", f"{median / reference:.2f}×")
    Console().print(table)
    Console().print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    typer.run(main)
