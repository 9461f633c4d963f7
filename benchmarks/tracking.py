"""How fast runs with their parameters and metrics are written: ours against MLflow's own store.

``python -m benchmarks.tracking --help``. Every writer has the same PostgreSQL, commits each run by itself
and takes its turn in rounds, so that what else the host does meets all. MLflow is asked in a process of
its own, by an interpreter that has it (``python -m venv V && V/bin/pip install mlflow psycopg2-binary``,
then ``--mlflow-python V/bin/python``); its log_batch is its fastest way. The other ways of writing a run's
rows, beside ours (``unnest``), are why it is ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import Session

from benchmarks.ground import DATABASE_HELP, fresh_database, owners
from ts_forecast.db.engine import transaction
from ts_forecast.quarters import Quarter
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.training import Hyperparameter
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.records import RunRecord, record_runs
from ts_forecast.tracking.runs import RunKey

Rows = list[dict[str, Any]]
Writer = Callable[[int], float]
_NUMBERS = count()
_PARAMETER = {"param_type": "float", "is_hyperparameter": True, "param_category": "model"}


def ours(engine: Engine, parameters: int, metrics: int) -> Writer:
    """record_runs, as the trials of a search are written."""

    def write(runs: int) -> float:
        values = {f"p{i:03}": i * 0.1 for i in range(parameters)}
        curve = [MetricRow(f"m{i:03}", i * 0.5, i) for i in range(metrics)]
        keys = [
            RunKey(1, "train", f"run {n}", f"{n:064}", Quarter(2024, 1))
            for n, _ in zip(_NUMBERS, range(runs), strict=False)
        ]
        begun = time.monotonic()
        record_runs(engine, (RunRecord(key, values, curve) for key in keys))
        return time.monotonic() - begun

    return write


def by_hand(
    engine: Engine, parameters: int, metrics: int, rows_of: Callable[[Session, Rows, Rows], None]
) -> Writer:
    """A transaction a run that only inserts; ``rows_of`` writes what belongs to the run."""

    def write(runs: int) -> float:
        begun = time.monotonic()
        for number, _ in zip(_NUMBERS, range(runs), strict=False):
            with transaction(engine) as session:
                run = session.execute(
                    text(
                        "INSERT INTO runs (experiment_id, run_name, run_fingerprint, status) "
                        "VALUES (1, 'run', :fingerprint, 'completed') RETURNING run_id"
                    ),
                    {"fingerprint": f"{number:064}"},
                ).scalar_one()
                rows_of(
                    session,
                    [
                        {"run_id": run, "param_key": f"p{i:03}", "param_value": str(i * 0.1)}
                        | _PARAMETER
                        for i in range(parameters)
                    ],
                    [
                        {"run_id": run, "metric_name": f"m{i:03}", "metric_value": i * 0.5}
                        | {"metric_step": i, "dataset_type": "validation"}
                        for i in range(metrics)
                    ],
                )
        return time.monotonic() - begun

    return write


def unnest(session: Session, parameters: Rows, metrics: Rows) -> None:
    run = parameters[0]["run_id"]
    log_parameters(
        session, run, {row["param_key"]: float(row["param_value"]) for row in parameters}
    )
    rows = [
        MetricRow(row["metric_name"], row["metric_value"], row["metric_step"]) for row in metrics
    ]
    log_metrics(session, run, rows)


def executemany(session: Session, parameters: Rows, metrics: Rows) -> None:
    session.execute(insert(Hyperparameter), parameters)
    session.execute(insert(Metric), metrics)


def insertmanyvalues(session: Session, parameters: Rows, metrics: Rows) -> None:
    session.execute(
        insert(Hyperparameter).returning(Hyperparameter.hyperparameter_id), parameters
    ).all()
    session.execute(insert(Metric).returning(Metric.metric_id), metrics).all()


def copy(session: Session, parameters: Rows, metrics: Rows) -> None:
    connection: Any = session.connection().connection.driver_connection
    for table, rows in (("hyperparameters", parameters), ("metrics", metrics)):
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(rows[0])}) FROM STDIN") as stream,
        ):
            for row in rows:
                stream.write_row(tuple(row.values()))


@contextmanager
def mlflow(engine: Engine, python: str, parameters: int, metrics: int) -> Iterator[Writer]:
    """MLflow's store, in a database of its own on the same server."""
    name = f"{engine.url.database}_mlflow"
    # Of the options of our engine, only where the server is.
    place = {key: value for key, value in engine.url.query.items() if key in ("host", "port")}
    server = engine.url.set(drivername="postgresql", query=place)
    admin_url = server.render_as_string(hide_password=False)
    url = server.set(drivername="postgresql+psycopg2", database=name)
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        command = [python, str(Path(__file__).with_name("mlflow_runs.py"))]
        command += [url.render_as_string(hide_password=False), str(parameters), str(metrics)]
        # Not our packages: they would shadow those of the other interpreter.
        alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone
        )
        assert process.stdin is not None and process.stdout is not None
        answers, questions = process.stdout, process.stdin

        def write(runs: int) -> float:
            print(runs, file=questions, flush=True)
            return float(json.loads(answers.readline())["seconds"])

        try:
            Console().print(f"MLflow {json.loads(answers.readline())['version']}")
            yield write
        finally:
            questions.close()
            process.wait()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each writer.")] = 1000,
    parameters: Annotated[int, typer.Option(min=1, help="Parameters a run.")] = 20,
    metrics: Annotated[int, typer.Option(min=1, help="Metrics a run.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each writer takes.")] = 5,
    mlflow_python: Annotated[str, typer.Option(help="Interpreter with MLflow.")] = sys.executable,
    database_url: Annotated[str | None, typer.Option(help=DATABASE_HELP)] = None,
) -> None:
    """Write runs by every way and print runs a second and the ratios to MLflow's."""
    asked = subprocess.run(
        [mlflow_python, "-c", "import mlflow, psycopg2"], capture_output=True, check=False
    )
    with fresh_database(database_url) as engine:
        owners(engine, 1, 1)
        writers = {"ours (record_runs)": ours(engine, parameters, metrics)}
        for way in (unnest, executemany, insertmanyvalues, copy):
            writers[f"by hand, {way.__name__}"] = by_hand(engine, parameters, metrics, way)
        if asked.returncode:
            typer.echo(
                f"{mlflow_python} has no MLflow: python -m venv V && V/bin/pip install mlflow "
                "psycopg2-binary, then --mlflow-python V/bin/python"
            )
            _print(_measure(writers, runs, rounds), runs, parameters, metrics)
            return
        with mlflow(engine, mlflow_python, parameters, metrics) as write:
            figures = _measure({"MLflow's store": write, **writers}, runs, rounds)
        _print(figures, runs, parameters, metrics)


def _measure(writers: dict[str, Writer], runs: int, rounds: int) -> dict[str, float]:
    share = max(1, runs // rounds)
    for write in writers.values():
        write(1)
    seconds = dict.fromkeys(writers, 0.0)
    for _ in range(rounds):
        for name, write in writers.items():
            seconds[name] += write(share)
    return {name: share * rounds / taken for name, taken in seconds.items()}


def _print(figures: dict[str, float], runs: int, parameters: int, metrics: int) -> None:
    table = Table(title=f"{runs:,} runs × {parameters} parameters × {metrics} metrics")
    for column in ("writer", "runs/s", f"ratio to {next(iter(figures))}"):
        table.add_column(column, justify="left" if column == "writer" else "right")
    reference = next(iter(figures.values()))
    for name, rate in figures.items():
        table.add_row(name, f"{rate:.0f}", f"{rate / reference:.1f}×")
    Console().print(table)
    Console().print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    typer.run(main)
