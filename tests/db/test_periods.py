"""Months and quarters: no day in none or in two of them, whatever the year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.db.periods import Months, Period, periods
from ts_forecast.errors import TsForecastError
from ts_forecast.quarters import Quarter

MONTHS = st.sampled_from([1, 3])
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))


@given(MOMENTS, MONTHS)
def test_of__any_moment__lies_in_its_period_alone(moment: datetime, months: Months) -> None:
    period = Period.of(moment, months)

    assert period.start <= moment < period.end
    assert moment >= period.shift(-1).end
    assert moment < period.shift(1).start
    assert period.end == period.shift(1).start


@given(MOMENTS, MONTHS, st.integers(-400, 400))
def test_shift__there_and_back__is_the_same_and_keeps_the_order(
    moment: datetime, months: Months, count: int
) -> None:
    period = Period.of(moment, months)
    moved = period.shift(count)

    assert moved.shift(-count) == period
    assert (moved > period) == (count > 0)
    assert (moved.start > period.start) == (count > 0)
    assert 0 <= abs((moved.start - period.start).days) - abs(count) * months * 28 <= abs(count) * 10


@given(MOMENTS, MONTHS, st.integers(0, 50))
def test_periods__of_a_span__leave_no_gap(moment: datetime, months: Months, count: int) -> None:
    first = Period.of(moment, months)
    found = list(periods(first, first.shift(count)))

    assert len(found) == count + 1
    assert all(a.end == b.start for a, b in zip(found, found[1:], strict=False))
    assert len({period.suffix for period in found}) == len(found)
    assert list(periods(first.shift(1), first)) == []


@pytest.mark.parametrize(
    ("text", "months", "suffix", "days"),
    [
        ("2024-02", 1, "2024_02", 29),
        ("1900-02", 1, "1900_02", 28),
        ("2000-02-29", 1, "2000_02", 29),
        ("2025-12-31", 1, "2025_12", 31),
        ("2025-12-31", 3, "2025_q4", 92),
        ("2024-Q1", 3, "2024_q1", 91),
        ("2025_q1", 1, "2025_01", 31),
    ],
)
def test_parse__month_quarter_or_day__is_its_period(
    text: str, months: Months, suffix: str, days: int
) -> None:
    period = Period.parse(text, months)

    assert period.suffix == suffix
    assert period.end - period.start == timedelta(days=days)


@pytest.mark.parametrize("text", ["soon", "2025-13", "2025-Q5", "2025-02-29", "0000-01", "9999-01"])
def test_parse__none_of_these__says_what_to_write(text: str) -> None:
    with pytest.raises(TsForecastError, match=r"Write 2025-02"):
        Period.parse(text, 1)


def test_of__moment_of_another_zone__is_taken_to_utc() -> None:
    tokyo = timezone(timedelta(hours=9))

    assert Period.of(datetime(2025, 1, 1, 8, tzinfo=tokyo), 1).suffix == "2024_12"
    assert Period.of(datetime(2025, 1, 1, 9, tzinfo=tokyo), 3).suffix == "2025_q1"


@given(st.dates(date(1700, 1, 1), date(2199, 12, 31)))
def test_of__quarters__are_those_of_the_forecasts(day: date) -> None:
    quarter, period = Quarter.of(day), Period.of(day, 3)

    assert (quarter.year, quarter.number) == (period.year, period.number)
    assert quarter.start == period.start.replace(tzinfo=None)
