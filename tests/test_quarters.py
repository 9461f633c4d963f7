"""Quarter arithmetic."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.errors import TsForecastError
from ts_forecast.quarters import YEARS, Quarter, quarter_range

QUARTERS = st.builds(Quarter, st.integers(1900, 2200), st.integers(1, 4))


@given(QUARTERS)
def test_parse__key_and_label__give_the_quarter_back(quarter: Quarter) -> None:
    assert Quarter.parse(quarter.key) == Quarter.parse(quarter.label) == quarter


@given(QUARTERS, st.integers(-400, 400))
def test_shift__there_and_back__is_the_same(quarter: Quarter, steps: int) -> None:
    assert quarter.shift(steps).shift(-steps) == quarter
    assert (quarter.shift(steps) > quarter) == (steps > 0)


@given(QUARTERS)
def test_bounds__are_half_open_and_tile(quarter: Quarter) -> None:
    assert Quarter.of(quarter.start) == quarter
    assert Quarter.of(quarter.end - timedelta(microseconds=1)) == quarter
    assert quarter.end == quarter.shift(1).start


@pytest.mark.parametrize("text", ["2025-Q5", "2025-02-01", "2025-04-02", "spring", ""])
def test_parse__anything_else__says_what_is_wanted(text: str) -> None:
    with pytest.raises(TsForecastError, match=r"is not a quarter.*2025-Q2"):
        Quarter.parse(text)


@pytest.mark.parametrize("text", ["0000-Q1", "3000-Q1", "9999-Q4", "1600-01-01"])
def test_parse__year_without_timestamps__is_refused(text: str) -> None:
    with pytest.raises(TsForecastError, match="1700 to 2200"):
        Quarter.parse(text)


@given(st.sampled_from(YEARS), st.integers(1, 4), st.integers(-40, 40))
def test_years__every_one__has_nanosecond_timestamps_and_room_around(
    year: int, number: int, steps: int
) -> None:
    # Raises OutOfBoundsDatetime where it has none.
    quarter = Quarter(year, number).shift(steps)
    assert pd.Timestamp(quarter.start).as_unit("ns") < pd.Timestamp(quarter.end).as_unit("ns")


@pytest.mark.parametrize("number", [0, 5, -1])
def test_quarter__no_such_number__is_refused(number: int) -> None:
    with pytest.raises(TsForecastError, match="no quarter"):
        Quarter(2025, number)


@given(QUARTERS, QUARTERS)
def test_quarter_range__any_two__counts_their_distance(first: Quarter, last: Quarter) -> None:
    quarters = list(quarter_range(first, last))

    assert len(quarters) == max(0, 4 * (last.year - first.year) + last.number - first.number + 1)
    assert quarters == sorted(set(quarters))


def test_quarter_range__last_before_first__is_empty() -> None:
    assert list(quarter_range(Quarter(2025, 2), Quarter(2025, 1))) == []
    assert len(list(quarter_range(Quarter(2024, 3), Quarter(2025, 2)))) == 4
