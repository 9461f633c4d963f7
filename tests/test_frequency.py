"""Grids: index and timestamps are each other's inverse, at every frequency."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.errors import TsForecastError
from ts_forecast.frequency import Grid

FREQUENCIES = "15min 30min h 2h D B W-SUN W-WED MS ME QS QE QS-FEB QE-JAN".split()


@pytest.mark.parametrize("freq", FREQUENCIES)
@given(start=st.datetimes(pd.Timestamp("1930-01-01"), pd.Timestamp("2100-01-01")))
def test_index__of_date_range__counts_its_steps(freq: str, start: object) -> None:
    moments = pd.date_range(pd.Timestamp(start).normalize(), periods=60, freq=freq)
    grid = Grid(freq)

    index = grid.index(moments)

    assert (np.diff(index) == 1).all()
    assert (grid.timestamps(index) == moments).all()
    assert grid.on_grid(moments).all()
    later = moments + pd.Timedelta(seconds=1)
    assert (grid.index(later) == index).all()
    assert not grid.on_grid(later).any()


@pytest.mark.parametrize("freq", FREQUENCIES)
@given(index=st.lists(st.integers(-800, 800), min_size=1, max_size=20))
def test_timestamps__any_index__is_inverted_by_index(freq: str, index: list[int]) -> None:
    grid, wanted = Grid(freq), np.array(index)

    moments = grid.timestamps(wanted)

    assert (grid.index(moments) == wanted).all()
    assert grid.on_grid(moments).all()


@pytest.mark.parametrize("freq", FREQUENCIES)
@given(start=st.datetimes(pd.Timestamp("1930-01-01"), pd.Timestamp("2100-01-01")))
def test_first_from__any_moment__is_the_next_point_at_or_after(freq: str, start: object) -> None:
    grid, moment = Grid(freq), pd.Timestamp(start)

    first = grid.first_from(moment)

    before, at = grid.timestamps(np.array([first - 1, first]))
    assert before < moment <= at


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("h", 24),
        ("15min", 96),
        ("D", 7),
        ("24h", 7),
        ("1440min", 7),
        ("48h", 7),
        ("B", 5),
        ("W", 52),
        ("ME", 12),
        ("QS", 4),
    ],
)
def test_season_length__is_what_people_expect(freq: str, season: int) -> None:
    assert Grid(freq).season_length == season


@pytest.mark.parametrize("freq", ["YS", "2MS", "100D", "H", "M", "nonsense", ""])
def test_grid__impossible_frequency__names_the_possible(freq: str) -> None:
    with pytest.raises(TsForecastError, match="W-MON"):
        Grid(freq)


def test_grid__daily_and_hourly_multiples__start_on_monday_and_at_midnight() -> None:
    assert Grid("D").timestamps(np.array([7 * 1000]))[0].weekday() == 0
    assert Grid("h").timestamps(np.array([24 * 999]))[0].hour == 0
