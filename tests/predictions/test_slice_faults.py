"""A slice and the hash that it goes by: whichever way it is replaced, they belong together."""

from __future__ import annotations

import random
import threading

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from ts_forecast.db import partitions
from ts_forecast.errors import PublishError
from ts_forecast.predictions.slice import (
    PREDICTION_SCHEMA,
    Published,
    publish_slice,
    read_slice,
    slice_version,
)
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2024, 1)
LEAF = partitions.leaf_table(QUARTER, 1)


@pytest.fixture(autouse=True)
def owners(engine: Engine) -> None:
    """An experiment, a run and a model for rows to refer to."""
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO experiments (experiment_name) VALUES ('shop')",
            "INSERT INTO runs (experiment_id, run_name, run_fingerprint) VALUES (1, 'r', 'f')",
            "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
            "model_file_path) VALUES (1, 'm', 'MLP', 'neuralforecast', '{}', 'x')",
        ):
            connection.execute(text(statement))


def rows(count: int, value: float) -> pa.Table:
    """A slice whose every row holds the same value, so that a mix of two shows."""
    number = np.arange(count)
    return pa.table(
        {
            "model_id": np.ones(count, dtype=np.int64),
            "unique_id": pa.array((number // 2000).astype(str)),
            "prediction_date": np.datetime64("2024-01-01", "us")
            + (number % 2000) * np.timedelta64(1, "h"),
            "horizon": np.ones(count, dtype=np.int32),
            "predicted_value": np.full(count, value),
            "actual_value": pa.nulls(count, pa.float64()),
            "lower_bound": pa.nulls(count, pa.float64()),
            "upper_bound": pa.nulls(count, pa.float64()),
            "confidence_level": pa.nulls(count, pa.float64()),
            "quantiles": pa.array([[value, value]] * count),
        }
    ).cast(PREDICTION_SCHEMA)


def publish(engine: Engine, table: pa.Table) -> Published:
    return publish_slice(engine, experiment_id=1, run_id=1, quarter=QUARTER, rows=table)


def held(engine: Engine) -> tuple[int, set[float]]:
    """How many rows readers see, and their values."""
    values = read_slice(engine, experiment_id=1, quarter=QUARTER)["predicted_value"]
    return len(values), set(values.to_pylist())


def orphans(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return partitions.orphans(connection, QUARTER, 1)


def test_slice_version__published_or_not__says_which(engine: Engine) -> None:
    with Session(engine) as session:
        assert slice_version(session, 1, QUARTER) is None
    published = publish(engine, rows(10, 1.0))

    with Session(engine) as session:
        version = slice_version(session, 1, QUARTER)
        assert version is not None
        assert (version.content_hash, version.rows, version.run_id) == (
            published.content_hash,
            10,
            1,
        )
        assert slice_version(session, 1, QUARTER.shift(1)) is None
        assert slice_version(session, 2, QUARTER) is None


def test_slice_version__leaf_that_nobody_attached__is_none(engine: Engine) -> None:
    with engine.begin() as connection:
        partitions.ensure_quarter(connection, QUARTER)
        partitions.create_detached_leaf(connection, LEAF)
        connection.execute(text(f"COMMENT ON TABLE {LEAF} IS 'sha256:x rows:1 run:1'"))

    with Session(engine) as session:
        assert slice_version(session, 1, QUARTER) is None


def test_publish_slice__two_writers_at_once__one_slice_and_its_own_hash(engine: Engine) -> None:
    outcomes: list[Published] = []
    tables = [rows(3_000, 1.0), rows(2_000, 2.0)]
    writers = [
        threading.Thread(target=lambda table=table: outcomes.append(publish(engine, table)))
        for table in tables
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    # Both came to an end; the later one is what stands, under its own hash.
    assert sorted(outcome.rows for outcome in outcomes) == [2_000, 3_000]
    assert held(engine) in [(3_000, {1.0}), (2_000, {2.0})]
    with Session(engine) as session:
        version = slice_version(session, 1, QUARTER)
    assert version is not None
    by_rows = {outcome.rows: outcome.content_hash for outcome in outcomes}
    assert version.content_hash == by_rows[held(engine)[0]]


def test_publish_slice__reader_never_lets_go__rows_and_hash_change_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No pauses between the attempts.
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 0.0)
    publish(engine, rows(3_000, 1.0))
    with engine.connect() as reader:
        reader.execute(text("BEGIN ISOLATION LEVEL REPEATABLE READ"))
        assert reader.scalar(text("SELECT count(*) FROM predictions")) == 3_000

        restated = publish(engine, rows(2_000, 2.0))

        assert held(engine) == (2_000, {2.0})
        assert reader.scalar(text("SELECT count(*) FROM predictions")) == 3_000
        with Session(engine) as session:
            version = slice_version(session, 1, QUARTER)
        assert version is not None
        assert version.content_hash == restated.content_hash
        # What stood before is news again, not "unchanged".
        assert publish(engine, rows(3_000, 1.0)).changed
        reader.rollback()
    assert held(engine) == (3_000, {1.0})
    assert orphans(engine) == []


def test_publish_slice__other_pipelines_of_the_quarter__are_untouched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (experiment_name) VALUES ('other')"))
    publish_slice(engine, experiment_id=2, run_id=1, quarter=QUARTER, rows=rows(50, 7.0))

    publish(engine, rows(100, 1.0))
    publish(engine, rows(60, 2.0))

    other = read_slice(engine, experiment_id=2, quarter=QUARTER)
    assert other["predicted_value"].to_pylist() == [7.0] * 50


def test_publish_slice__nulls_over_any_bytes__same_hash(engine: Engine) -> None:
    # What lies under a null is no content.
    place = PREDICTION_SCHEMA.get_field_index("actual_value")
    is_null = np.array([True, False, True])
    tables = [
        rows(3, 1.0).set_column(
            place, PREDICTION_SCHEMA.field(place), pa.array(np.array(values), mask=is_null)
        )
        for values in ([5.0, 5.0, 5.0], [8.0, 5.0, 9.0])
    ]

    assert publish(engine, tables[0]).changed
    assert not publish(engine, tables[1]).changed


@pytest.mark.parametrize("quantiles", [[1.0, float("nan")], [float("-inf"), 1.0], [1.0, None]])
def test_publish_slice__quantile_that_is_no_number__is_refused(
    engine: Engine, quantiles: list[float | None]
) -> None:
    place = PREDICTION_SCHEMA.get_field_index("quantiles")
    values = [[1.0, 2.0], None, quantiles, [3.0]]
    bad = rows(4, 1.0).set_column(
        place, PREDICTION_SCHEMA.field(place), pa.array(values, pa.list_(pa.float64()))
    )

    with pytest.raises(PublishError, match=r"quantiles are .* '0' at 2024-01-01 02:00"):
        publish(engine, bad)

    assert held(engine) == (0, set())
