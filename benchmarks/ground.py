"""What the database benchmarks stand on: a fresh database, owners of forecasts, and forecasts.

Measuring is each benchmark's own business.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
from sqlalchemy import Engine, make_url, text

from ts_forecast.db import migrate
from ts_forecast.db.embedded import start_embedded, stop_embedded
from ts_forecast.db.engine import create_engine
from ts_forecast.predictions.slice import PREDICTION_SCHEMA
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

DATABASE_HELP = "URL of a server, on which a database of its own is made and dropped again."


@contextmanager
def fresh_database(server_url: str | None) -> Iterator[Engine]:
    """A migrated database that is gone at the end: on an embedded server, or on the given one."""
    if server_url is not None:
        with _own_database(server_url) as engine:
            yield engine
        return
    with tempfile.TemporaryDirectory(prefix="ts-forecast-") as home:
        settings = Settings(_env_file=None, home=Path(home))
        engine = create_engine(start_embedded(settings))
        try:
            migrate.upgrade(engine)
            yield engine
        finally:
            engine.dispose()
            stop_embedded(settings)


@contextmanager
def _own_database(server_url: str) -> Iterator[Engine]:
    name = f"ts_forecast_benchmark_{secrets.token_hex(4)}"
    address = make_url(server_url).set(drivername="postgresql")
    admin_url = address.render_as_string(hide_password=False)
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        url = address.set(drivername="postgresql+psycopg", database=name)
        engine = create_engine(url.render_as_string(hide_password=False))
        try:
            migrate.upgrade(engine)
            yield engine
        finally:
            engine.dispose()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def owners(engine: Engine, experiments: int, models: int) -> None:
    """Experiments 1…n, a run and ``models`` models each; ids count on from 1."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO experiments (experiment_name) "
                "SELECT 'pipeline_' || e FROM generate_series(1, :experiments) e ORDER BY e"
            ),
            {"experiments": experiments},
        )
        connection.execute(
            text(
                "INSERT INTO runs (experiment_id, run_name, run_fingerprint, status) "
                "SELECT experiment_id, 'r', md5(experiment_id::text), 'completed' "
                "FROM experiments ORDER BY 1"
            )
        )
        connection.execute(
            text(
                "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
                "model_file_path) SELECT run_id, 'model_' || m, 'MLP', 'neuralforecast', '{}', 'x' "
                "FROM runs, generate_series(1, :models) m ORDER BY run_id, m"
            ),
            {"models": models},
        )


def forecasts(
    quarter: Quarter,
    count: int,
    *,
    series: int,
    models: tuple[int, ...],
    shift: float = 0.0,
    quantiles: int = 3,
) -> pa.Table:
    """``count`` forecasts of a quarter: all series and models, from so many cutoffs as it takes.

    Args:
        shift: added to every value; another one makes another slice.
    """
    number = np.arange(count)
    model = number % len(models)
    one = number // len(models)
    moment = one // series
    days = (quarter.end - quarter.start).days
    value = np.random.default_rng(7).normal(100, 20, count) + shift
    steps = np.linspace(-10, 10, quantiles) if quantiles > 1 else np.zeros(1)
    flat = (value[:, None] + steps[None, :]).ravel()
    offsets = np.arange(count + 1, dtype=np.int32) * quantiles
    names = pa.array([f"series_{i:06d}" for i in range(series)])
    return pa.table(
        {
            "model_id": pa.array(np.array(models, np.int64)[model]),
            "unique_id": names.take(pa.array(one % series)),
            "prediction_date": np.datetime64(quarter.start, "us")
            + (moment % days) * np.timedelta64(1, "D"),
            "horizon": (moment // days + 1).astype(np.int32),
            "predicted_value": value,
            "actual_value": value + 1.0,
            "lower_bound": value - 10.0,
            "upper_bound": value + 10.0,
            "confidence_level": np.full(count, 0.8),
            "quantiles": pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)),
        }
    ).cast(PREDICTION_SCHEMA)
