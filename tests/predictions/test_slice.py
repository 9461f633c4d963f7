"""Publishing a slice: whole or not at all, once, and never a malformed row."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ts_forecast.db import partitions
from ts_forecast.db.engine import create_engine
from ts_forecast.errors import PublishError
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, publish_slice, read_slice
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2024, 1)


@pytest.fixture(autouse=True)
def owners(engine: Engine) -> None:
    """An experiment, a run and two models for rows to refer to."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))
        connection.execute(
            text("INSERT INTO runs (experiment_id, run_name, run_fingerprint) VALUES (1, 'r', 'f')")
        )
        for _ in range(2):
            connection.execute(
                text(
                    "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
                    "model_file_path) VALUES (1, 'm', 'MLP', 'neuralforecast', '{}', 'x')"
                )
            )


def table(count: int = 600, shift: float = 0.0, **columns: Any) -> pa.Table:
    number = np.arange(count)
    content: dict[str, Any] = {
        "model_id": number % 2 + 1,
        "unique_id": [f"s{i // 2 % 10}" for i in number],
        "prediction_date": np.datetime64("2024-01-01", "us")
        + (number // 20) * np.timedelta64(1, "h"),
        "horizon": np.ones(count, dtype=np.int32),
        "predicted_value": number + shift,
        "actual_value": pa.array([None if i % 7 == 0 else float(i) for i in number]),
        "lower_bound": number - 1.0,
        "upper_bound": number + 1.0,
        "confidence_level": np.full(count, 0.8),
        "quantiles": pa.array([[i - 1.0, float(i), i + 1.0] for i in number]),
    }
    return pa.table(content | columns).cast(PREDICTION_SCHEMA)


def publish(engine: Engine, rows: pa.Table) -> Any:
    return publish_slice(engine, experiment_id=1, run_id=1, quarter=QUARTER, rows=rows)


def leaf_oid(engine: Engine) -> int:
    with engine.connect() as connection:
        name = partitions.leaf_table(QUARTER, 1)
        return int(connection.scalar(text("SELECT to_regclass(:name)::oid"), {"name": name}))


def test_publish_slice__rows__come_back_equal(engine: Engine) -> None:
    published = publish(engine, table())

    found = read_slice(engine, experiment_id=1, quarter=QUARTER)

    assert (published.rows, published.changed) == (600, True)
    keys = [(name, "ascending") for name in ("model_id", "unique_id", "prediction_date", "horizon")]
    assert found.sort_by(keys).equals(table().sort_by(keys))
    assert read_slice(engine, experiment_id=1, quarter=QUARTER, model_ids=[2]).num_rows == 300
    assert read_slice(engine, experiment_id=1, quarter=QUARTER.shift(1)).num_rows == 0


def test_publish_slice__same_rows_in_another_order__writes_nothing(engine: Engine) -> None:
    publish(engine, table())
    before = leaf_oid(engine)
    shuffled = table().take(np.random.default_rng(0).permutation(600))

    assert not publish(engine, shuffled).changed
    assert leaf_oid(engine) == before


def test_publish_slice__restated__takes_the_place_and_leaves_no_orphan(engine: Engine) -> None:
    publish(engine, table())
    assert publish(engine, table(count=400, shift=5)).changed

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM predictions")) == 400
        assert partitions.orphans(connection, QUARTER, 1) == []
        assert [leaf.name for leaf in partitions.list_leaves(connection)] == [
            partitions.leaf_table(QUARTER, 1)
        ]


def test_publish_slice__two_writers_at_once__one_whole_slice(engine: Engine) -> None:
    slices = [table(count=300), table(count=500, shift=1)]
    threads = [threading.Thread(target=publish, args=(engine, rows)) for rows in slices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read_slice(engine, experiment_id=1, quarter=QUARTER).num_rows in (300, 500)


def test_publish_slice__reader_in_an_open_transaction__is_not_waited_for_for_ever(
    engine: Engine,
) -> None:
    publish(engine, table())
    reader = create_engine(engine.url.render_as_string(hide_password=False))
    with reader.connect() as connection:
        connection.execute(text("BEGIN ISOLATION LEVEL REPEATABLE READ"))
        assert connection.scalar(text("SELECT count(*) FROM predictions")) == 600
        begun = time.monotonic()

        assert publish(engine, table(count=400, shift=5)).changed

        assert time.monotonic() - begun < 30
        # The reader's snapshot stands.
        assert connection.scalar(text("SELECT count(*) FROM predictions")) == 600
    reader.dispose()
    assert read_slice(engine, experiment_id=1, quarter=QUARTER).num_rows == 400


def test_publish_slice__orphan_of_a_killed_writer__is_cleared(engine: Engine) -> None:
    publish(engine, table())
    with engine.begin() as connection:
        name = f"{partitions.leaf_table(QUARTER, 1)}_ndeadbeef"
        partitions.create_detached_leaf(connection, name)

    publish(engine, table(shift=1))

    with engine.connect() as connection:
        assert not partitions.exists(connection, name)


@pytest.mark.parametrize(
    ("column", "value", "pattern"),
    [
        ("predicted_value", float("nan"), "predicted_value is nan"),
        ("upper_bound", float("inf"), "upper_bound is inf"),
        ("unique_id", "", "unique_id is empty"),
        ("unique_id", "x" * 256, "over 255"),
        ("horizon", 0, "horizon is below 1"),
        ("prediction_date", datetime(2024, 4, 1), "outside of the quarter"),
        ("prediction_date", datetime(2023, 12, 31, 23), "outside of the quarter"),
        ("model_id", 99, "knows no model 99"),
    ],
)
def test_publish_slice__malformed_row__changes_nothing(
    engine: Engine, column: str, value: Any, pattern: str
) -> None:
    publish(engine, table())
    values = table(shift=1)[column].to_pylist()
    values[17] = value
    bad = table(shift=1).set_column(
        PREDICTION_SCHEMA.get_field_index(column),
        PREDICTION_SCHEMA.field(column),
        pa.array(values, PREDICTION_SCHEMA.field(column).type),
    )

    with pytest.raises(PublishError, match=pattern):
        publish(engine, bad)

    assert read_slice(engine, experiment_id=1, quarter=QUARTER).num_rows == 600
    with engine.connect() as connection:
        assert partitions.orphans(connection, QUARTER, 1) == []


def test_publish_slice__row_twice__names_it(engine: Engine) -> None:
    twice = pa.concat_tables([table(), table().slice(0, 1)])

    with pytest.raises(PublishError, match=r"series 's0' for 2024-01-01 .* stands twice"):
        publish(engine, twice)


@pytest.mark.parametrize("rows", [pa.table({"model_id": [1]}), table().slice(0, 0)])
def test_publish_slice__no_forecasts__refuses(engine: Engine, rows: pa.Table) -> None:
    with pytest.raises(PublishError):
        publish(engine, rows)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
            st.datetimes(datetime(2024, 1, 1), datetime(2024, 3, 31, 23, 59, 59)),
            st.integers(1, 2**31 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[:4],
    )
)
def test_publish_slice__any_valid_rows__come_back(engine: Engine, rows: list[Any]) -> None:
    model, ids, dates, horizon, values = zip(*rows, strict=True)
    empty = pa.nulls(len(rows), pa.float64())
    given_rows = pa.table(
        {
            "model_id": pa.array(model, pa.int64()),
            "unique_id": pa.array(ids),
            "prediction_date": pa.array(dates, pa.timestamp("us")),
            "horizon": pa.array(horizon, pa.int32()),
            "predicted_value": pa.array(values, pa.float64()),
            "actual_value": empty,
            "lower_bound": empty,
            "upper_bound": empty,
            "confidence_level": empty,
            "quantiles": pa.nulls(len(rows), pa.list_(pa.float64())),
        },
        schema=PREDICTION_SCHEMA,
    )

    publish(engine, given_rows)

    found = read_slice(engine, experiment_id=1, quarter=QUARTER).to_pylist()
    key = lambda row: (row["model_id"], row["unique_id"], row["prediction_date"], row["horizon"])  # noqa: E731
    assert sorted(found, key=key) == sorted(given_rows.to_pylist(), key=key)


def test_publish_slice__is_audited_once_a_publish(engine: Engine) -> None:
    for shift in (0.0, 0.0, 1.0):
        publish(engine, table(shift=shift))

    with engine.connect() as connection:
        records = connection.execute(
            text(
                "SELECT operation_type, record_id, old_values, new_values FROM audit.audit_logs "
                "WHERE table_name = 'predictions' ORDER BY audit_id"
            )
        ).all()
    assert [(r.operation_type, r.record_id) for r in records] == [("INSERT", 1), ("UPDATE", 1)]
    first, second = records
    assert first.old_values is None
    assert second.old_values == first.new_values
    assert second.new_values["partition"] == partitions.leaf_table(QUARTER, 1)
    assert second.new_values["slice"].endswith("rows:600 run:1")
