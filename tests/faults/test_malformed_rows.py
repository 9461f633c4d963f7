"""A hundred malformed rows: each refuses its whole slice with one clear error, and changes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from tests.predictions.slices import QUARTER, content, detached, make_owners, publish, table
from ts_forecast.errors import PublishError
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, publish_slice

NAN, INF = float("nan"), float("inf")
ROWS = 60
PLACES = (0, 17, ROWS - 1)
MICROSECONDS = pa.timestamp("us")


def raw_text(values: list[bytes]) -> pa.Array:
    """Strings of any bytes, as a careless writer of Arrow hands them over."""
    held = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), held.buffers()[1], held.buffers()[2])


# Column, what the error says, and the values that it says it of.
MALFORMED: list[tuple[str, str, list[Any]]] = [
    ("unique_id", "is empty", [b""]),
    ("unique_id", "is over 255 characters", [b"x" * 256, b"x" * 30_000, "é".encode() * 256]),
    ("unique_id", "holds NUL", [b"\0", b"a\0b", b"s000001\0"]),
    (
        "unique_id",
        "are not forecasts.*UTF8",
        [b"\xed\xa0\x80", b"a\xed\xbf\xbf", b"\xff", b"\xc3(", b"\xf5\x80\x80\x80", b"\xc0\x80"],
    ),
    ("unique_id", "are not forecasts.*unique_id", [None]),
    ("predicted_value", "predicted_value is (nan|-?inf) for series", [NAN, INF, -INF]),
    ("predicted_value", "are not forecasts.*predicted_value", [None]),
    ("actual_value", "actual_value is (nan|-?inf) for series", [NAN, INF, -INF]),
    ("lower_bound", "lower_bound is (nan|-?inf) for series", [NAN, INF, -INF]),
    ("upper_bound", "upper_bound is (nan|-?inf) for series", [NAN, INF, -INF]),
    ("quantiles", "quantiles are .* for series", [[NAN], [INF], [1.0, -INF], [None], [1.0, NAN]]),
    ("confidence_level", "confidence_level is .* for series", [0.0, 1.0, -0.5, 80.0, NAN, INF]),
    ("horizon", "horizon is below 1 for series", [0, -1, -(2**31)]),
    ("horizon", "are not forecasts.*not in range", [2**31, 2**63 - 1, -(2**31) - 1]),
    ("horizon", "are not forecasts", [None, 1.5]),
    ("model_id", "knows no model", [0, -1, 99, 2**63 - 1]),
    ("model_id", "are not forecasts", [None, 0.5]),
    (
        "prediction_date",
        "outside of the quarter",
        [
            datetime(1, 1, 1),
            datetime(2023, 12, 31, 23, 59, 59, 999_999),
            datetime(2024, 4, 1),
            datetime(9999, 12, 31),
            2**63 - 1,
            -(2**63) + 1,
        ],
    ),
    ("prediction_date", "are not forecasts.*prediction_date", [None]),
]
NUMBER = len(PLACES) * sum(len(values) for _, _, values in MALFORMED)


def with_value(column: str, place: int, value: Any) -> pa.Table:
    """A good slice but for one value."""
    rows = table(ROWS, 1.0)
    values = rows[column].to_pylist()
    values[place] = value
    if column == "unique_id" and value is not None:
        changed = raw_text([v if isinstance(v, bytes) else v.encode() for v in values])
    elif column == "prediction_date" and isinstance(value, int):
        moments = rows[column].to_numpy().astype("datetime64[us]").astype(np.int64)
        moments[place] = value
        changed = pa.array(moments).view(MICROSECONDS)
    elif isinstance(value, float) and column in ("horizon", "model_id"):
        changed = pa.array([float(v) for v in values])
    elif column in ("horizon", "model_id"):
        changed = pa.array(values, pa.int64())
    else:
        changed = pa.array(values, PREDICTION_SCHEMA.field(column).type)
    place_of = PREDICTION_SCHEMA.get_field_index(column)
    return rows.set_column(place_of, column, changed)


def test_malformed__are_a_hundred() -> None:
    assert NUMBER >= 100


def test_publish_slice__one_malformed_row__is_refused_by_name_and_changes_nothing(
    engine: Engine,
) -> None:
    make_owners(engine)
    publish(engine, table(300))

    for column, pattern, values in MALFORMED:
        for value in values:
            for place in PLACES:
                with pytest.raises(PublishError, match=f"(?s)Slice 2024-Q1: .*{pattern}"):
                    publish(engine, with_value(column, place, value))

    assert content(engine) == (300, {0.0})
    with engine.connect() as connection:
        assert detached(connection) == []


def test_publish_slice__owner_that_is_not_there__is_named(engine: Engine) -> None:
    make_owners(engine)
    for experiment, run, pattern in ((7, 1, "knows no experiment 7"), (1, 8, "knows no run 8")):
        with pytest.raises(PublishError, match=pattern):
            publish_slice(
                engine, experiment_id=experiment, run_id=run, quarter=QUARTER, rows=table(3)
            )
