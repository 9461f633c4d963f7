"""The panel: grid completion, causal filling, which forecasts are issued."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import DatasetError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter

DAYS = pd.date_range("2014-01-01", "2015-12-31")


def pipeline(**changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": 14,
        "step": 7,
        "start": "2014-01-01",
        "missing": "interpolate",
        "models": ["SeasonalNaive"],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def series(unique_id: str, values: Any, days: pd.DatetimeIndex = DAYS) -> pd.DataFrame:
    return pd.DataFrame({"unique_id": unique_id, "ds": days, "y": np.asarray(values, dtype=float)})


def test_from_frame__any_order__same_content() -> None:
    rng = np.random.default_rng(0)
    frame = pd.concat([series(name, rng.normal(size=len(DAYS))) for name in ("b", "a")])

    one = Panel.from_frame(frame, pipeline())
    other = Panel.from_frame(frame.sample(frac=1, random_state=1), pipeline())

    assert one.unique_ids == ("a", "b")
    assert one.content_hash() == other.content_hash()


def test_from_frame__leading_gap__starts_at_first_observation() -> None:
    values = np.arange(len(DAYS), dtype=float)
    values[:10] = np.nan

    panel = Panel.from_frame(series("a", values), pipeline())

    assert panel.ds[0] == pd.Timestamp("2014-01-11")
    assert panel.y[0] == 10


def test_from_frame__nothing_observed__refuses() -> None:
    with pytest.raises(DatasetError, match="no series has a complete observation"):
        Panel.from_frame(series("a", np.full(len(DAYS), np.nan)), pipeline())


def test_until__series_that_start_later__are_left_out() -> None:
    frame = pd.concat([series("a", np.ones(len(DAYS))), series("late", np.ones(31), DAYS[-31:])])
    panel = Panel.from_frame(frame, pipeline())

    before = panel.until(int(panel.grid.index(pd.DatetimeIndex(["2015-11-30"]))[0]))

    assert before.unique_ids == ("a",)
    assert before.ds.max() == pd.Timestamp("2015-11-30")


def test_filled__interpolate__is_linear_between_observations() -> None:
    panel = Panel.from_frame(series("a", [1, np.nan, np.nan, 4], DAYS[:4]), pipeline())

    assert panel.filled("interpolate").y.tolist() == [1, 2, 3, 4]
    assert panel.filled("ffill").y.tolist() == [1, 1, 1, 4]


def test_filled__error_policy__names_the_first_gap() -> None:
    panel = Panel.from_frame(series("a", [1, np.nan, 3], DAYS[:3]), pipeline())

    with pytest.raises(DatasetError, match=r"Series a has no value at 2014-01-02"):
        panel.filled("error")


def test_windows__cutoff_in_a_gap__carries_forward_instead_of_interpolating() -> None:
    values = np.arange(len(DAYS), dtype=float)
    cutoff_day = pd.Timestamp("2015-10-11")
    gap = (cutoff_day - pd.Timedelta(days=2) <= DAYS) & (cutoff_day + pd.Timedelta("1D") >= DAYS)
    values[gap] = np.nan
    panel = Panel.from_frame(series("a", values), pipeline())
    plan = pipeline().slice_plan(Quarter(2015, 4))
    issued = panel.issued(plan, pipeline())

    y, mask = panel.windows(issued, 5, "interpolate")

    row = int(np.flatnonzero(panel.grid.timestamps(issued.cutoff) == cutoff_day)[0])
    last = values[DAYS == cutoff_day - pd.Timedelta(days=3)][0]
    assert y[row].tolist() == [last - 1, last, last, last, last]
    assert mask[row].tolist() == [1] * 5


def test_windows__short_history__is_padded_and_masked() -> None:
    panel = Panel.from_frame(series("a", np.arange(1, 13), DAYS[-12:]), pipeline(min_history=1))
    plan = pipeline().slice_plan(Quarter(2015, 4))
    issued = panel.issued(plan, pipeline(min_history=1))

    y, mask = panel.windows(issued, 10, "error")

    # Two Sundays lie in these twelve days, the first of them the series' first day.
    assert mask.sum(axis=1).tolist() == [1, 8]
    assert mask[1].tolist() == [0, 0] + [1] * 8
    assert y[1].tolist() == [0, 0, *range(1, 9)]


def test_issued__promotions_unknown_over_the_horizon__are_not_issued() -> None:
    known = pipeline(exogenous={"future": ["promo"]}, models=["NHITS"])
    frame = series("a", np.ones(len(DAYS))).assign(promo=0.0)
    panel = Panel.from_frame(frame, known)
    plan = known.slice_plan(Quarter(2015, 4))

    last = panel.grid.timestamps(panel.issued(plan, known).cutoff).max()

    # The last promotion known is that of 31 December: 14 days after the cutoff, a Sunday.
    assert last == pd.Timestamp("2015-12-13")


def test_issued__discontinued_series__ends_with_its_last_observation() -> None:
    values = np.ones(len(DAYS))
    values[pd.Timestamp("2015-11-20") <= DAYS] = np.nan
    panel = Panel.from_frame(series("a", values), pipeline())

    issued = panel.issued(pipeline().slice_plan(Quarter(2015, 4)), pipeline())

    assert panel.grid.timestamps(issued.cutoff).max() == pd.Timestamp("2015-11-15")


@settings(max_examples=60, deadline=None)
@given(
    missing=st.sets(st.integers(1, 199), max_size=120),
    cutoff=st.integers(20, 180),
    policy=st.sampled_from(["interpolate", "ffill"]),
    noise=st.integers(0, 2**32 - 1),
)
def test_windows__future_changed__do_not_move(
    missing: set[int], cutoff: int, policy: Any, noise: int
) -> None:
    days = DAYS[-200:]
    rng = np.random.default_rng(noise)
    values = rng.normal(size=200)
    values[list(missing)] = np.nan
    changed = values.copy()
    changed[cutoff + 1 :] = rng.normal(size=199 - cutoff) * 1e6
    lazy = pipeline(min_history=1)
    plan = lazy.slice_plan(Quarter(2015, 4))

    windows = []
    for content in (values, changed):
        panel = Panel.from_frame(series("a", content, days), lazy)
        issued = panel.issued(plan, lazy)
        y, mask = panel.windows(issued, 30, policy)
        until = panel.grid.index(days[cutoff : cutoff + 1])[0]
        keep = issued.cutoff <= min(until, panel.last_observed[0])
        windows.append(dict(zip(issued.cutoff[keep].tolist(), y[keep].tolist(), strict=True)))

    shared = windows[0].keys() & windows[1].keys()
    assert all(windows[0][c] == windows[1][c] for c in shared)
