"""Slices that tests publish: their owners, their rows, and what a reader finds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, Engine, text

from ts_forecast.db import partitions
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, Published, publish_slice
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2024, 1)
LEAF = partitions.leaf_table(QUARTER, 1)
_OWNERS = (
    "INSERT INTO experiments (experiment_name) VALUES ('shop')",
    "INSERT INTO runs (experiment_id, run_name, run_fingerprint) VALUES (1, 'r', 'f')",
    "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
    "model_file_path) VALUES (1, 'm', 'MLP', 'neuralforecast', '{}', 'x')",
)


def make_owners(engine: Engine) -> None:
    """An experiment, a run and a model for rows to refer to; each has the id 1."""
    with engine.begin() as connection:
        for statement in _OWNERS:
            connection.execute(text(statement))


def table(count: int, value: float = 0.0) -> pa.Table:
    """As many series with one forecast each, all of the same value."""
    nulls = pa.nulls(count, pa.float64())
    return pa.table(
        {
            "model_id": np.ones(count, np.int64),
            "unique_id": [f"s{i:06d}" for i in range(count)],
            "prediction_date": np.full(count, np.datetime64("2024-02-01", "us")),
            "horizon": np.ones(count, np.int32),
            "predicted_value": np.full(count, value),
            "actual_value": nulls,
            "lower_bound": nulls,
            "upper_bound": nulls,
            "confidence_level": nulls,
            "quantiles": pa.nulls(count, pa.list_(pa.float64())),
        }
    ).cast(PREDICTION_SCHEMA)


def publish(engine: Engine, rows: pa.Table) -> Published:
    """Make the rows the slice of experiment 1 in ``QUARTER``."""
    return publish_slice(engine, experiment_id=1, run_id=1, quarter=QUARTER, rows=rows)


def count(connection: Connection) -> int:
    """Forecasts that a reader sees."""
    return int(connection.scalar(text("SELECT count(*) FROM predictions")) or 0)


def content(engine: Engine) -> tuple[int, set[float]]:
    """How many forecasts a reader sees, and which values."""
    with engine.connect() as connection:
        values = connection.scalars(text("SELECT predicted_value FROM predictions")).all()
    return len(values), set(values)


def detached(connection: Connection) -> list[str]:
    """Tables that a writer left behind."""
    query = "SELECT relname FROM pg_class WHERE relname ~ '_[no][0-9a-f]{8}$' AND relkind = 'r'"
    return list(connection.scalars(text(query)))
