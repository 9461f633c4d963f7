"""What it takes to publish a slice, against a bare binary COPY of the same rows.

``python -m benchmarks.publish --help``. The slice goes into a quarter that holds three others, as large;
processes read series of that quarter all the while, and their worst wait is printed beside the worst one
of the same readers before. Every way has its turn in rounds; medians are printed, and what else the host
does: its load. ``DataFrame.to_sql`` writes into the partition that the slice would be.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Annotated

import pandas as pd
import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import ARRAY, Double, Engine, text

from benchmarks.ground import DATABASE_HELP, forecasts, fresh_database, owners
from ts_forecast.db.arrow import replace_rows
from ts_forecast.db.engine import create_engine
from ts_forecast.predictions.latest import latest_forecasts_of
from ts_forecast.predictions.slice import publish_slice
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2024, 1)
MODELS = (1, 2, 3)
# Experiment 1 is re-published, 2 to 4 are the others of the quarter, 5 is to_sql's, later ones are new.
_OTHERS = (2, 3, 4)
_TO_SQL, _FIRST_NEW = 5, 6
_PAUSE_SECONDS = 0.002


def read_on(url: str, series: int, stop: Event, answers: Queue[list[float]]) -> None:
    """Read a series at random, of the slice or of its neighbours, until told to stop."""
    engine = create_engine(url)
    waits = []
    while not stop.is_set():
        name = f"series_{random.randrange(series):06d}"
        begun = time.monotonic()
        found = latest_forecasts_of(engine, random.choice([1, *_OTHERS]), QUARTER, name)
        waits.append(time.monotonic() - begun)
        assert len(found)
        time.sleep(_PAUSE_SECONDS)
    answers.put(waits)


class Readers:
    """Processes that read all the while; at the end, ``waits`` holds how long each read took."""

    def __init__(self, engine: Engine, number: int, series: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop, self._answers = context.Event(), context.Queue()
        url = engine.url.render_as_string(hide_password=False)
        self._processes = [
            context.Process(target=read_on, args=(url, series, self._stop, self._answers))
            for _ in range(number)
        ]
        self.waits: list[float] = []

    def __enter__(self) -> Readers:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for _process in self._processes:
            # The first read of a process opens its connection.
            self.waits += self._answers.get(timeout=120)[1:]
        for process in self._processes:
            process.join()


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of each slice.")] = 1_000_000,
    series: Annotated[int, typer.Option(min=1, help="Series of each slice.")] = 1_000,
    quantiles: Annotated[int, typer.Option(min=1, help="Quantiles a row.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 3,
    readers: Annotated[int, typer.Option(min=1, help="Processes that read meanwhile.")] = 2,
    to_sql: Annotated[bool, typer.Option(help="Whether to_sql has a turn (one).")] = True,
    database_url: Annotated[str | None, typer.Option(help=DATABASE_HELP)] = None,
) -> None:
    """Publish a slice and publish it anew; print the ratios to a bare COPY and the readers' waits."""

    def slice_rows(shift: float) -> pa.Table:
        return forecasts(
            QUARTER, rows, series=series, models=MODELS, shift=shift, quantiles=quantiles
        )

    seconds: dict[str, list[float]] = {}

    def timed(name: str, action: Callable[[], object]) -> None:
        begun = time.monotonic()
        action()
        seconds.setdefault(name, []).append(time.monotonic() - begun)

    def publish(experiment: int, content: pa.Table) -> None:
        publish_slice(
            engine, experiment_id=experiment, run_id=experiment, quarter=QUARTER, rows=content
        )

    with fresh_database(database_url) as engine:
        owners(engine, _FIRST_NEW + rounds, len(MODELS))
        for experiment in (1, *_OTHERS):
            publish(experiment, slice_rows(experiment))
        with Readers(engine, readers, series) as before:
            time.sleep(15)
        content = slice_rows(0)
        with Readers(engine, readers, series) as meanwhile:
            for turn in range(rounds):
                timed("bare binary COPY", partial(_copy, engine, content))
                timed("publish", partial(publish, _FIRST_NEW + turn, content))
                content = slice_rows(100 + turn)
                timed("re-publish", partial(publish, 1, content))
                timed("publish unchanged", partial(publish, 1, content))
        if to_sql:
            publish(_TO_SQL, slice_rows(0).slice(0, 1))
            frame = _full(content, _TO_SQL).to_pandas()
            frame["quantiles"] = frame["quantiles"].map(lambda values: values.tolist())
            frame["horizon"] += 100_000  # not the key of the one row that made the partition
            timed("DataFrame.to_sql", partial(_to_sql, engine, frame))
    _print(seconds, before.waits, meanwhile.waits, rows, rounds)


def _full(rows: pa.Table, experiment: int) -> pa.Table:
    for name in ("experiment_id", "run_id"):
        rows = rows.append_column(name, pa.repeat(pa.scalar(experiment), rows.num_rows))
    return rows


def _copy(engine: Engine, rows: pa.Table) -> None:
    full = _full(rows, 1)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS bare"))
        columns = ", ".join(full.column_names)
        connection.execute(text(f"CREATE TABLE bare AS SELECT {columns} FROM predictions LIMIT 0"))
    # Over one connection, as it is bare.
    replace_rows(engine, "bare", full, comment="")


def _to_sql(engine: Engine, frame: pd.DataFrame) -> None:
    frame.to_sql(
        "predictions",
        engine,
        if_exists="append",
        index=False,
        chunksize=50_000,
        dtype={"quantiles": ARRAY(Double)},
    )


def _print(
    seconds: dict[str, list[float]],
    before: list[float],
    meanwhile: list[float],
    rows: int,
    rounds: int,
) -> None:
    table = Table(title=f"{rows:,} rows, median of {rounds}; load {os.getloadavg()[0]:.1f}")
    for column in ("way", "s", "ratio to COPY", "rows/s"):
        table.add_column(column, justify="left" if column == "way" else "right")
    reference = statistics.median(seconds["bare binary COPY"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        table.add_row(name, f"{median:.2f}", f"{median / reference:.1f}×", f"{rows / median:,.0f}")
    Console().print(table)
    for name, waits in (("before", before), ("meanwhile", meanwhile)):
        ranked = sorted(waits)
        Console().print(
            f"readers {name}: {len(ranked):,} reads, median {ranked[len(ranked) // 2] * 1e3:.1f} ms, "
            f"p99 {ranked[len(ranked) * 99 // 100] * 1e3:.1f} ms, worst {ranked[-1] * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    typer.run(main)
