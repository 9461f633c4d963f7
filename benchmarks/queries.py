"""How fast people's questions are answered on ten million forecasts of eight quarters.

``python -m benchmarks.queries --help``. First one client asks for the latest forecasts of a series and for
the leaderboard of a pipeline; then fifty clients, in processes on the same machine, read three times for
each time that they write: once as the review's users do, who pause for 0.1 to 0.5 s, and once without a
pause. A read is one of these questions or the runs of a pipeline; a write is a run with its parameters and
metrics. Nothing fails here on a timing; targets stand beside.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, select, text

from benchmarks.ground import DATABASE_HELP, forecasts, fresh_database, owners
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.evaluation.leaderboard import leaderboard
from ts_forecast.predictions.latest import latest_forecasts_of
from ts_forecast.predictions.slice import publish_slice
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.measurements import MetricRow
from ts_forecast.tracking.records import RunRecord, record_runs
from ts_forecast.tracking.runs import RunKey

FIRST = Quarter(2023, 1)
_MODELS = 3
_METRICS, _BUCKETS = 8, 4
_RECENT = 20
_PAUSES = {"pausing 0.1 to 0.5 s": (0.1, 0.5), "without a pause": (0.0, 0.0)}
Waits = dict[str, list[float]]


class Client:
    """One user's questions and writes, on an engine that others share."""

    def __init__(self, engine: Engine, pipelines: int, series: int, quarters: int) -> None:
        self._engine, self._pipelines, self._series = engine, pipelines, series
        self._quarters = list(quarter_range(FIRST, FIRST.shift(quarters - 1)))
        self._random = random.Random()

    def latest_of_a_series(self) -> None:
        """Latest forecasts of a series in a quarter, all models."""
        found = latest_forecasts_of(
            self._engine,
            self._pipeline(),
            self._random.choice(self._quarters),
            f"series_{self._random.randrange(self._series):06d}",
        )
        assert len(found)

    def leaderboard_of_a_pipeline(self) -> None:
        """All quarters and models by one metric."""
        with transaction(self._engine) as session:
            found = leaderboard(session, self._pipeline())
        assert len(found) == len(self._quarters) * _MODELS

    def recent_runs(self) -> None:
        """The newest runs of a pipeline."""
        with transaction(self._engine) as session:
            query = select(Run.run_id, Run.run_name, Run.status, Run.start_time)
            query = query.where(Run.experiment_id == self._pipeline(), Run.deleted_at.is_(None))
            session.execute(query.order_by(Run.start_time.desc()).limit(_RECENT)).all()

    def write_a_run(self) -> None:
        """A run with ten parameters and twenty metrics."""
        mark = f"{self._random.getrandbits(256):064x}"
        key = RunKey(self._pipeline(), "train", "load", mark, self._quarters[-1])
        metrics = [MetricRow("loss", 1.0 / (step + 1), step, "train") for step in range(20)]
        record_runs(self._engine, [RunRecord(key, {f"p{i}": i for i in range(10)}, metrics)])

    def act(self) -> str:
        """Do what a user does next; its name."""
        reads = (self.latest_of_a_series, self.leaderboard_of_a_pipeline, self.recent_runs)
        action = self.write_a_run if self._random.random() < 0.25 else self._random.choice(reads)
        action()
        return action.__name__

    def _pipeline(self) -> int:
        return self._random.randint(1, self._pipelines)


def users(
    url: str,
    number: int,
    shape: tuple[int, int, int],
    seconds: float,
    pause: tuple[float, float],
    answers: Queue[tuple[Waits, list[str]]],
) -> None:
    """A process with so many clients, each in a thread; answers with waits and errors."""
    # As many connections as clients: what is waited for is the database and not the pool.
    settings = Settings(_env_file=None, database_pool_size=number, database_max_overflow=0)
    engine = create_engine(url, settings)
    waits: Waits = {}
    errors: list[str] = []
    client_lock = threading.Lock()
    end = time.monotonic() + seconds

    def user() -> None:
        client = Client(engine, *shape)
        with engine.connect():
            pass
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                name = client.act()
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
                continue
            with client_lock:
                waits.setdefault(name, []).append(time.monotonic() - begun)
            time.sleep(random.uniform(*pause))

    threads = [threading.Thread(target=user) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put((waits, errors))
    engine.dispose()


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Forecasts in all.")] = 10_000_000,
    quarters: Annotated[int, typer.Option(min=1, help="Quarters.")] = 8,
    pipelines: Annotated[int, typer.Option(min=1, help="Pipelines.")] = 4,
    series: Annotated[int, typer.Option(min=1, help="Series a pipeline.")] = 1_000,
    questions: Annotated[int, typer.Option(min=20, help="Of each kind, by one client.")] = 1_000,
    clients: Annotated[int, typer.Option(min=1, help="Clients of the load test.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Processes they live in.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each load test.")] = 40,
    database_url: Annotated[str | None, typer.Option(help=DATABASE_HELP)] = None,
) -> None:
    """Fill a database, ask it alone, then under load; print percentiles beside their targets."""
    shape = (pipelines, series, quarters)
    with fresh_database(database_url) as engine:
        begun = time.monotonic()
        _fill(engine, rows, shape)
        Console().print(f"{rows:,} forecasts published in {time.monotonic() - begun:.0f} s")
        client = Client(engine, *shape)
        table = _table("one client")
        _add(table, "latest forecasts of a series", _ask(client.latest_of_a_series, questions), 5)
        _add(table, "leaderboard", _ask(client.leaderboard_of_a_pipeline, questions), 50)
        Console().print(table)
        for name, pause in _PAUSES.items():
            waits, errors = _load(engine, shape, clients, processes, seconds, pause)
            every = [wait for kind in waits.values() for wait in kind]
            table = _table(f"{clients} clients, {name}: {len(every) / seconds:,.0f} requests/s")
            _add(table, "all", every, 200)
            for action, kind in sorted(waits.items()):
                _add(table, action.replace("_", " "), kind)
            Console().print(table)
            Console().print(f"errors: {len(errors)} {errors[:3] or ''}")
        Console().print(f"load {os.getloadavg()[0]:.1f}")


def _fill(engine: Engine, rows: int, shape: tuple[int, int, int]) -> None:
    pipelines, series, quarters = shape
    owners(engine, pipelines, _MODELS)
    for quarter in quarter_range(FIRST, FIRST.shift(quarters - 1)):
        for pipeline in range(1, pipelines + 1):
            first = (pipeline - 1) * _MODELS + 1
            content = forecasts(
                quarter,
                rows // (pipelines * quarters),
                series=series,
                models=tuple(range(first, first + _MODELS)),
                shift=pipeline,
            )
            publish_slice(
                engine, experiment_id=pipeline, run_id=pipeline, quarter=quarter, rows=content
            )
        with engine.begin() as connection:
            _score(connection.execute, quarter)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _score(execute: Callable[..., object], quarter: Quarter) -> None:
    """An evaluation of each pipeline and quarter: summaries by model, metric and horizon bucket."""
    execute(
        text(
            "WITH run AS (INSERT INTO runs (experiment_id, run_name, run_fingerprint, status, "
            "quarter_start, end_time, tags) SELECT experiment_id, 'evaluate', "
            "md5(experiment_id || :label), 'completed', :start, now(), "
            "jsonb_build_object('kind', 'evaluate') FROM experiments "
            "RETURNING run_id, experiment_id) "
            "INSERT INTO metric_summaries (run_id, model_id, metric_name, dataset_type, "
            "horizon_bucket, quarter_start, mean_value, sample_count) "
            "SELECT run.run_id, model_id, CASE metric WHEN 1 THEN 'mae' ELSE 'm' || metric END, "
            "'test', CASE bucket WHEN 1 THEN 'all' ELSE 'b' || bucket END, :start, random(), 100 "
            "FROM run JOIN runs USING (experiment_id) JOIN models ON models.run_id = runs.run_id, "
            "generate_series(1, :metrics) metric, generate_series(1, :buckets) bucket"
        ),
        {
            "label": quarter.label,
            "start": quarter.start.date(),
            "metrics": _METRICS,
            "buckets": _BUCKETS,
        },
    )


def _ask(question: Callable[[], None], times: int) -> list[float]:
    for _ in range(10):
        question()
    waits = []
    for _ in range(times):
        begun = time.monotonic()
        question()
        waits.append(time.monotonic() - begun)
    return waits


def _load(
    engine: Engine,
    shape: tuple[int, int, int],
    clients: int,
    processes: int,
    seconds: float,
    pause: tuple[float, float],
) -> tuple[Waits, list[str]]:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    url = engine.url.render_as_string(hide_password=False)
    shares = [clients // processes + (i < clients % processes) for i in range(processes)]
    started = [
        context.Process(target=users, args=(url, share, shape, seconds, pause, answers))
        for share in shares
        if share
    ]
    for process in started:
        process.start()
    waits: Waits = {}
    errors: list[str] = []
    for _ in started:
        found, problems = answers.get(timeout=seconds + 120)
        errors += problems
        for name, kind in found.items():
            waits.setdefault(name, []).extend(kind)
    for process in started:
        process.join()
    return waits, errors


def _table(title: str) -> Table:
    table = Table(title=title)
    for column in ("question", "number", "median, ms", "p95, ms", "worst, ms", "target p95, ms"):
        table.add_column(column, justify="left" if column == "question" else "right")
    return table


def _add(table: Table, name: str, waits: list[float], target: int | None = None) -> None:
    ranked = sorted(waits)
    p95 = ranked[math.ceil(0.95 * len(ranked)) - 1]
    cells = [f"{value * 1e3:.1f}" for value in (ranked[len(ranked) // 2], p95, ranked[-1])]
    table.add_row(name, f"{len(ranked):,}", *cells, f"< {target}" if target else "")


if __name__ == "__main__":
    typer.run(main)
