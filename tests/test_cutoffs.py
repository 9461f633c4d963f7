"""Slices: every forecast belongs to exactly one, and its model knew nothing of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.cutoffs import plan_slice
from ts_forecast.frequency import Grid
from ts_forecast.quarters import Quarter

PROBLEMS = st.tuples(
    st.sampled_from(["D", "h", "W-SUN", "ME", "B"]), st.integers(1, 60), st.integers(1, 30)
)


@given(PROBLEMS, st.integers(1990, 2040), st.integers(1, 4))
def test_plan_slice__consecutive_quarters__tile_all_forecasts(
    problem: tuple[str, int, int], year: int, number: int
) -> None:
    freq, horizon, step = problem
    grid, first = Grid(freq), Quarter(year, number)
    plans = [plan_slice(grid, first.shift(i), horizon=horizon, step=step) for i in range(4)]

    seen: set[tuple[int, int]] = set()
    for plan in plans:
        cutoffs, ahead = plan.pairs()
        targets = cutoffs + ahead
        stamps = grid.timestamps(targets)
        assert ((stamps >= plan.quarter.start) & (stamps < plan.quarter.end)).all()
        assert ((cutoffs + 1) % step == 0).all()
        pairs = set(zip(cutoffs.tolist(), ahead.tolist(), strict=True))
        assert len(pairs) == len(cutoffs)
        assert not pairs & seen
        seen |= pairs
    # A cutoff whose horizon lies within the four quarters has all of its steps in them.
    inside = range(plans[0].first_target, plans[-1].last_target - horizon + 1)
    for cutoff in (c for c in inside if (c + 1) % step == 0):
        assert all((cutoff, ahead) in seen for ahead in range(1, horizon + 1))


@given(PROBLEMS, st.integers(1990, 2040), st.integers(1, 4))
def test_fit_until__is_before_the_quarter_and_at_or_before_every_cutoff(
    problem: tuple[str, int, int], year: int, number: int
) -> None:
    freq, horizon, step = problem
    plan = plan_slice(Grid(freq), Quarter(year, number), horizon=horizon, step=step)

    if len(plan.cutoffs) and step <= horizon:
        assert plan.fit_until < plan.first_target
        assert (plan.cutoffs >= plan.fit_until).all()


def test_plan_slice__day_ahead_prices__one_midnight_a_day() -> None:
    plan = plan_slice(Grid("h"), Quarter(2018, 1), horizon=24, step=24)

    stamps = Grid("h").timestamps(plan.cutoffs)
    assert len(stamps) == 90
    assert set(stamps.hour) == {23}
    assert stamps[0] == pd.Timestamp("2017-12-31 23:00")


def test_plan_slice__end_of_the_pipeline__no_target_after_it() -> None:
    end = pd.Timestamp("2018-02-10 23:00")
    plan = plan_slice(Grid("h"), Quarter(2018, 1), horizon=24, step=24, end=end)

    cutoffs, ahead = plan.pairs()
    assert Grid("h").timestamps(np.array([int((cutoffs + ahead).max())]))[0] == end
