"""Slices: every forecast belongs to exactly one, and its model knew nothing of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.cutoffs import cutoffs_before, plan_slice
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
    plans = [plan_slice(grid, first.shift(i), horizon=horizon, step=step) for i in range(3)]

    slices = []
    for plan in plans:
        cutoffs, ahead = plan.pairs()
        stamps = grid.timestamps(cutoffs + ahead)
        assert ((stamps >= plan.quarter.start) & (stamps < plan.quarter.end)).all()
        assert ((cutoffs + 1) % step == 0).all()
        slices.append((cutoffs, ahead))
    # No forecast stands twice, in one slice or in two.
    cutoffs, ahead = (np.concatenate(parts) for parts in zip(*slices, strict=True))
    assert len(np.unique(cutoffs * (horizon + 1) + ahead)) == len(cutoffs)
    # A cutoff whose horizon lies within the quarters has all of its steps in them.
    inside = np.arange(plans[0].first_target, plans[-1].last_target - horizon + 1)
    counts = pd.Series(cutoffs).value_counts().reindex(inside[(inside + 1) % step == 0])
    assert (counts == horizon).all()


@given(PROBLEMS, st.integers(1990, 2040), st.integers(1, 4))
def test_fit_until__is_before_the_quarter_and_at_or_before_every_cutoff(
    problem: tuple[str, int, int], year: int, number: int
) -> None:
    freq, horizon, step = problem
    plan = plan_slice(Grid(freq), Quarter(year, number), horizon=horizon, step=step)

    assert plan.fit_until < plan.first_target
    assert (plan.cutoffs >= plan.fit_until).all()


def test_fit_until__first_cutoff_inside_the_quarter__ends_before_the_quarter() -> None:
    # With a step longer than the horizon no cutoff need lie before the quarter.
    plan = plan_slice(Grid("D"), Quarter(2018, 1), horizon=1, step=28)

    assert plan.cutoffs[0] >= plan.first_target
    assert plan.fit_until == plan.first_target - 1


@given(PROBLEMS, st.integers(1990, 2040), st.integers(1, 4))
def test_pairs__every_target__is_reached_by_as_many_cutoffs_as_promised(
    problem: tuple[str, int, int], year: int, number: int
) -> None:
    freq, horizon, step = problem
    plan = plan_slice(Grid(freq), Quarter(year, number), horizon=horizon, step=step)

    cutoffs, ahead = plan.pairs()
    reached = np.bincount(
        cutoffs + ahead - plan.first_target, minlength=plan.last_target - plan.first_target + 1
    )

    most = -(-horizon // step)
    assert set(reached.tolist()) <= {most, most - 1}


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


@pytest.mark.parametrize(
    ("last", "step", "val_size", "expected"),
    [
        (104, 7, 7, [97]),  # the first target of 97 is 98, a multiple of 7
        (106, 7, 7, [97]),  # two days into the week: the last whole window
        (104, 7, 21, [83, 90, 97]),
        (104, 1, 9, [95, 96, 97]),
        (104, 14, 7, [97]),
        (104, 14, 28, [83, 97]),
    ],
)
def test_cutoffs_before__lie_where_those_of_slices_do(
    last: int, step: int, val_size: int, expected: list[int]
) -> None:
    assert cutoffs_before(last, 7, step, val_size).tolist() == expected
