"""Drift: silent on noise, loud on a shift, whatever the size of the series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.conftest import make_pipeline
from ts_forecast.checks.drift import check_drift, stability_index
from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

SIZES = {"large": 1000.0, "small": 1.0}


def frame(first: str, days: int, seed: int, **shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for name, size in SIZES.items():
        y = size * (10 + shift.get(name, 0.0) + rng.normal(size=days))
        promotion = (rng.random(days) < 0.1 + shift.get("promotion", 0.0)).astype(float)
        ds = pd.date_range(first, periods=days)
        parts.append(pd.DataFrame({"unique_id": name, "ds": ds, "y": y, "promotion": promotion}))
    return pd.concat(parts, ignore_index=True)


def pipeline(**changes: object) -> Pipeline:
    return make_pipeline(exogenous={"future": ["promotion"]}, **changes)


def window() -> Panel:
    return Panel.from_frame(frame("2022-07-01", 184, 1), pipeline())


def test_check_drift__same_distribution__passes() -> None:
    results = [check_drift(window(), frame("2023-01-01", 90, s), pipeline()) for s in range(2, 22)]

    assert sum(not result.passed for result in results) <= 1
    assert {"psi_y", "wasserstein_y", "psi_promotion"} <= set(results[0].figures)


def test_check_drift__small_series_shifted__warns() -> None:
    result = check_drift(window(), frame("2023-01-01", 90, 2, small=2.0), pipeline())

    assert (result.passed, result.is_blocking) == (False, False)
    assert result.reason.startswith("y has a stability index of")
    assert float(result.figures["wasserstein_y"]) > 0.5


def test_check_drift__promotions_every_other_day__names_the_column() -> None:
    new = frame("2023-01-01", 90, 2, promotion=0.5)

    result = check_drift(window(), new, pipeline())
    lenient = check_drift(window(), new, pipeline(checks={"max_psi": 5}))

    assert (result.passed, lenient.passed) == (False, True)
    assert result.reason.startswith("promotion has")


def test_check_drift__constant_that_changed__warns() -> None:
    old, new = frame("2022-07-01", 184, 1), frame("2023-01-01", 90, 2)

    panel = Panel.from_frame(old.assign(promotion=1.0), pipeline())

    assert check_drift(panel, new.assign(promotion=1.0), pipeline()).passed
    assert not check_drift(panel, new.assign(promotion=0.0), pipeline()).passed


def test_check_drift__only_new_series__says_so() -> None:
    new = frame("2023-01-01", 90, 2).replace({"unique_id": {"large": "x", "small": "z"}})

    result = check_drift(window(), new, pipeline())

    assert result.passed
    assert "nothing to compare" in result.reason


def seasonal(first: str, last: str, seed: int, level: float = 20.0) -> pd.DataFrame:
    """Temperatures: warm summers, cold winters, nothing else that changes."""
    rng = np.random.default_rng(seed)
    ds = pd.date_range(first, last)
    wave = -np.cos(2 * np.pi * (ds.dayofyear.to_numpy() - 15) / 365.25)
    y = level + 10 * wave + rng.normal(scale=3, size=len(ds))
    promotion = (rng.random(len(ds)) < 0.1).astype(float)
    return pd.DataFrame({"unique_id": "town", "ds": ds, "y": y, "promotion": promotion})


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("first", ["2021-01-01", "2022-01-01"])
def test_check_drift__seasonal_series__warns_of_no_quarter_that_is_as_the_years_before(
    number: int, first: str
) -> None:
    quarter = Quarter(2023, number)
    before = quarter.start - pd.Timedelta("1D")
    start = max(pd.Timestamp(first), pd.Timestamp(quarter.shift(-8).start))
    old = seasonal(str(start), str(before), 1)
    new = seasonal(str(quarter.start), str(quarter.end - pd.Timedelta("1D")), 2)

    panel = Panel.from_frame(old, pipeline())
    same = check_drift(panel, new, pipeline())
    warmer = check_drift(panel, new.assign(y=new["y"] + 8), pipeline())
    assert same.passed, same.reason
    assert f"2022-Q{number}" in same.reason
    assert not warmer.passed
    years = [year for year in (2021, 2022) if Quarter(year, number).start >= start]
    assert same.figures["compared_with"] == ", ".join(f"{year}-Q{number}" for year in years)


def test_check_drift__winter_as_warm_as_the_year__warns() -> None:
    """Against the whole year it would be nothing: that comparison is the control."""
    panel = Panel.from_frame(seasonal("2022-01-01", "2022-12-31", 1), pipeline())
    winter = seasonal("2023-01-01", "2023-03-31", 2)
    rng = np.random.default_rng(4)
    winter["y"] = rng.choice(panel.y, len(winter))

    result = check_drift(panel, winter, pipeline())

    assert not result.passed
    index, noise = stability_index(panel.y, winter["y"].to_numpy())
    assert index < max(0.25, noise)


def test_check_drift__window_of_less_than_a_year__is_compared_whole_and_says_so() -> None:
    old = seasonal("2022-04-02", "2022-12-31", 1)
    new = seasonal("2023-01-01", "2023-03-31", 2)

    result = check_drift(Panel.from_frame(old, pipeline()), new, pipeline())

    assert not result.passed
    assert "against the whole window, which holds less than a year" in result.reason


def test_stability_index__few_observations__noise_allows_for_them() -> None:
    rng = np.random.default_rng(3)

    few = stability_index(rng.normal(size=30), rng.normal(size=30))
    many = stability_index(rng.normal(size=30_000), rng.normal(size=30_000))

    assert few[1] > 1 > 0.01 > many[1]
    assert many[0] < many[1]
