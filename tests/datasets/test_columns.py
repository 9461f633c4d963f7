"""Cells: timestamps, identifiers and numbers; the first bad one is named."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.datasets.columns import Origin, to_ids, to_numbers, to_timestamps
from ts_forecast.errors import SourceError

ORIGIN = Origin(Path("shop.csv"), "cell", 2)
NAIVE = [datetime(2024, 1, 1), datetime(2024, 1, 2, 12)]


def column(values: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    "values",
    [
        column(["2024-01-01", "2024-01-02T12:00"]),
        column([" 2024-01-01 00:00", "2024-01-02 12:00:00.000 "]),
        column(["2024-01-01T00:00Z", "2024-01-02T12:00:00Z"]),
        column(["2024-01-01T09:00+09:00", "2024-01-02T21:00+09:00"]),
        column(NAIVE, pa.timestamp("ms")),
        column(NAIVE, pa.timestamp("ns", "Asia/Tokyo")),
    ],
)
def test_to_timestamps__any_spelling__is_naive_utc(values: pa.ChunkedArray) -> None:
    stamps = to_timestamps(values, ORIGIN, None)

    assert stamps.tz is None
    assert stamps.dtype == "datetime64[ns]"
    assert stamps.to_pydatetime().tolist() == NAIVE


def test_to_timestamps__dates__are_midnight() -> None:
    assert to_timestamps(column([date(2024, 1, 1)]), ORIGIN, None)[0] == NAIVE[0]


def test_to_timestamps__format__decides() -> None:
    days = to_timestamps(column(["02/01/2024", "03/01/2024"]), ORIGIN, "%d/%m/%Y")

    assert days.month.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("values", "time_format", "pattern"),
    [
        (["2024-01-01", "2024-02-30"], None, "row 3, column 'cell': '2024-02-30' is no timestamp"),
        (["2024-01-01", "now"], None, "row 3, column 'cell': 'now' is no timestamp"),
        (["today"], None, "row 2, column 'cell': 'today' is no timestamp"),
        (["01.02.2024"], "%d/%m/%Y", "row 2.* no timestamp in the format '%d/%m/%Y'"),
        ([None], None, "row 2, column 'cell': an empty cell"),
        (["2024-01-01", "2024-01-01T00:00Z"], None, "row 3.* another time zone than '2024-01-01'"),
        (["2024-03-30T00+0100", "2024-03-31T00+0200"], None, "row 3.* another time zone"),
        (["1 +0100", "2 +0200"], "%H %z", "row 3.* another time zone"),
        ([datetime(1492, 10, 12)], None, "row 2.* outside of 1700 to 2250"),
        ([20240101], None, "row 2.* is int64, not a timestamp"),
    ],
)
def test_to_timestamps__bad_cell__is_named(
    values: list[Any], time_format: str | None, pattern: str
) -> None:
    with pytest.raises(SourceError, match=pattern):
        to_timestamps(column(values), ORIGIN, time_format)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (column(["a", "NA", " ü"]), ["a", "NA", " ü"]),
        (column([1, 2]), ["1", "2"]),
        (column(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (column(["x" * 255]), ["x" * 255]),
    ],
)
def test_to_ids__anything_that_names__is_text(values: pa.ChunkedArray, names: list[str]) -> None:
    assert to_ids(values, ORIGIN).tolist() == names


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        (column(["a", None]), "row 3, column 'cell': an empty cell is no identifier"),
        (column([None], pa.string()), "row 2, column 'cell': an empty cell"),
        (column(["a", ""]), "row 3, column 'cell': '' is no identifier"),
        (column(["é" * 256]), "row 2.* longer than 255 characters"),
        (column(["a\0"]), "row 2.* holds a NUL"),
        (column([["a"]]), "row 2.* not an identifier"),
    ],
)
def test_to_ids__bad_cell__is_named(values: pa.ChunkedArray, pattern: str) -> None:
    with pytest.raises(SourceError, match=pattern):
        to_ids(values, ORIGIN)


@pytest.mark.parametrize(
    "values",
    [
        column(["1.5", None, " -2e3 "]),
        column(["1.5", "NA", "-2000"]),
        column(["+1.5", "null", "-2000."]),
        column([1.5, float("nan"), -2000.0], pa.float32()),
        column([Decimal("1.5"), None, Decimal(-2000)]),
        column(["1.5", None, "-2000"]).dictionary_encode(),
    ],
)
def test_to_numbers__any_type__is_double(values: pa.ChunkedArray) -> None:
    numbers = to_numbers(values, ORIGIN, allow_boolean=False)

    np.testing.assert_array_equal(numbers, [1.5, np.nan, -2000])
    assert numbers.dtype == np.float64


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        (["1", "1,5"], "row 3, column 'cell': '1,5' is no number"),
        (["1", "x", "y"], r"row 3, column 'cell': 'x' is no number \(2 such rows in all\)"),
        (["-inf"], "row 2, column 'cell': '-inf' is infinite"),
        ([float("inf")], "row 2, column 'cell': inf is infinite"),
        ([None, True], "row 3, column 'cell': True is a boolean"),
        ([date(2024, 1, 1)], "row 2.* not a number"),
        (["0x10"], "row 2.* no number"),
        (["1", "-nan"], "row 3.* no number"),
        (["1_000"], "row 2.* no number"),
        (["1e999"], "row 2.* (no number|infinite)"),
        (["x" * 500], "row 2.*x… is no number"),
    ],
)
def test_to_numbers__bad_cell__is_named(values: list[Any], pattern: str) -> None:
    with pytest.raises(SourceError, match=pattern):
        to_numbers(column(values), ORIGIN, allow_boolean=False)


def test_to_numbers__promotions_as_booleans__are_ones() -> None:
    assert to_numbers(column([True, False]), ORIGIN, allow_boolean=True).tolist() == [1, 0]


def test_to_numbers__plus_signs__cost_no_bit() -> None:
    # Arrow knows no +, pandas rounds its last bit away.
    values = column(["+9.229808924021579e-262", "9.229808924021579e-262"])

    assert to_numbers(values, ORIGIN, allow_boolean=False).tolist() == [9.229808924021579e-262] * 2


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))))
def test_to_numbers__printed__come_back_to_the_last_bit(values: list[float | None]) -> None:
    text = column([None if value is None else repr(value) for value in values], pa.string())

    numbers = to_numbers(text, ORIGIN, allow_boolean=False)

    assert numbers.tobytes() == np.array(values, dtype=float).tobytes()


@given(st.datetimes(datetime(1700, 1, 2), datetime(2249, 12, 31)))
def test_to_timestamps__printed__come_back(moment: datetime) -> None:
    stamps = to_timestamps(column([moment.isoformat()]), ORIGIN, None)

    assert stamps[0] == pd.Timestamp(moment)
