"""A pipeline's derived values: what its rooms compute from the declaration."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.errors import PipelineError, TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter


def declare(**changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "raw/shop.csv"},
        "frequency": "D",
        "horizon": 14,
        "start": "2022-01-01",
        "models": ["NHITS", "SeasonalNaive"],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


@pytest.mark.parametrize("horizon", [14, 14.0, "14"])
@pytest.mark.parametrize("given_step", [{}, {"step": 0}])
def test_step__not_given__is_the_horizon_however_that_is_written(
    horizon: object, given_step: dict[str, int]
) -> None:
    pipeline = declare(horizon=horizon, **given_step)

    assert (pipeline.step, pipeline.horizon) == (14, 14)
    # A step of 0 would divide by zero here.
    assert len(pipeline.slice_plan(Quarter(2023, 1)).cutoffs)


def test_step__given__stays() -> None:
    assert declare(step=7).step == 7


@given(st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True))
def test_quantiles__any_levels__ascend_mirror_and_hold_the_median(levels: list[int]) -> None:
    quantiles = declare(levels=levels).quantiles

    assert list(quantiles) == sorted(set(quantiles))
    assert len(quantiles) == 2 * len(levels) + 1
    assert quantiles[len(levels)] == 0.5
    assert [round(1 - q, 6) for q in reversed(quantiles)] == list(quantiles)
    assert all(0 < q < 1 for q in quantiles)


def test_quantiles__no_levels__are_none() -> None:
    assert declare().quantiles == ()


def test_window__near_the_start__is_cut_off() -> None:
    pipeline = declare(window_quarters=8)

    assert pipeline.window(Quarter(2022, 1)) == ()
    assert [q.label for q in pipeline.window(Quarter(2022, 3))] == ["2022-Q1", "2022-Q2"]
    assert len(pipeline.window(Quarter(2030, 1))) == 8


@given(st.integers(1, 40), st.integers(2015, 2040), st.integers(1, 4))
def test_window__any__ends_before_its_quarter(width: int, year: int, number: int) -> None:
    quarter = Quarter(year, number)

    window = declare(window_quarters=width).window(quarter)

    assert len(window) <= width
    assert all(q < quarter for q in window)
    assert list(window) == sorted(set(window))


def test_slice_plan__end__is_the_whole_of_its_last_day() -> None:
    pipeline = declare(frequency="h", horizon=24, end="2023-02-10")

    cutoffs, ahead = pipeline.slice_plan(Quarter(2023, 1)).pairs()
    last = pipeline.grid.timestamps(cutoffs + ahead).max()

    assert last == pd.Timestamp("2023-02-10 23:00")


def test_slice_plan__quarter_after_the_end__is_empty() -> None:
    # The end lies within a horizon of the quarter: cutoffs before it would still look that far.
    plan = declare(step=1, end="2022-12-25").slice_plan(Quarter(2023, 1))

    assert len(plan.cutoffs) == 0
    assert plan.fit_until < plan.first_target


def test_needed_history__not_given__is_a_season() -> None:
    assert declare().needed_history == 7
    assert declare(season_length=30).needed_history == 30
    assert declare(min_history=3).needed_history == 3


def test_baseline_model__none_named__is_the_seasonal_naive() -> None:
    baseline = declare().baseline_model

    assert baseline is not None and baseline.model == "SeasonalNaive"
    assert declare(models=["NHITS"]).baseline_model is None
    named = declare(baseline="NHITS").baseline_model
    assert named is not None and named.name == "NHITS"


def test_model__unknown__names_those_that_there_are() -> None:
    with pytest.raises(TsForecastError, match="NHITS, SeasonalNaive"):
        declare().model("NBEATS")


@pytest.mark.parametrize("chosen", ["weekday", "weekday_sin", "weekday_cos"])
def test_exogenous_of__calendar_feature_or_wave__brings_both_waves(chosen: str) -> None:
    pipeline = declare(
        exogenous={"future": ["promotion"], "calendar": ["weekday", "month"]},
        models=[{"model": "NHITS", "exogenous": [chosen]}, "SeasonalNaive"],
    )

    taken = pipeline.exogenous_of(pipeline.model("NHITS"))
    assert taken.all_future == ("weekday_sin", "weekday_cos")
    assert pipeline.exogenous_of(pipeline.model("SeasonalNaive")).all_future == ()


@pytest.mark.parametrize("role", ["future", "historic"])
@pytest.mark.parametrize("column", ["sales", "store", "day"])
def test_exogenous__column_of_the_series_itself__is_refused(role: str, column: str) -> None:
    """The target, known ahead, would be the worst of leaks."""
    source = {
        "files": "x.csv",
        "id_column": "store",
        "time_column": "day",
        "target_column": "sales",
    }

    with pytest.raises(PipelineError, match=rf"exogenous: {column} is the source's"):
        declare(source=source, exogenous={role: [column]})


def test_pipeline__read__cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        declare().horizon = 3  # type: ignore[misc]
