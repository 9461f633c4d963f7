"""Checks of stored observations: each passes on good rows and names what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.conftest import make_pipeline
from ts_forecast.checks.observations import check_freshness, check_gaps, check_observations
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2023, 1)
LATER = pd.Timestamp("2024-01-01")


def rows() -> pd.DataFrame:
    days = pd.date_range("2023-01-01", "2023-03-31")
    parts = [pd.DataFrame({"unique_id": name, "ds": days, "y": 1.0}) for name in ("a", "b")]
    return pd.concat(parts, ignore_index=True)


def test_check_observations__good_rows__all_pass() -> None:
    results = check_observations(rows(), make_pipeline(), QUARTER, now=LATER)

    assert [result.name for result in results] == ["schema", "duplicates", "gaps", "freshness"]
    assert all(result.passed and "\n" not in result.reason for result in results)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda frame: frame.drop(columns="y"), "without y"),
        (lambda frame: frame.assign(price=1.0), "with price"),
        (lambda frame: frame.assign(y="1"), "y is no number"),
        (lambda frame: frame.assign(y=np.inf), "180 infinite values"),
        (lambda frame: frame.assign(ds=frame["ds"] + pd.Timedelta("1h")), "180 rows off the grid"),
        (lambda frame: frame.assign(ds=frame["ds"] + pd.Timedelta("1D")), "2 outside of 2023-Q1"),
        (lambda frame: frame.assign(ds="today"), "ds is no timestamp"),
    ],
)
def test_check_observations__wrong_schema__blocks_with_the_reason(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    (result,) = check_observations(spoil(rows()), make_pipeline(), QUARTER, now=LATER)

    assert (result.name, result.is_blocking) == ("schema", True)
    assert reason in result.reason


def test_check_observations__a_row_twice__blocks() -> None:
    frame = pd.concat([rows(), rows().iloc[[5]]])

    results = check_observations(frame, make_pipeline(), QUARTER, now=LATER)

    assert [result.name for result in results if result.is_blocking] == ["duplicates"]
    assert "'a' at 2023-01-06" in results[1].reason


def test_check_gaps__beyond_the_limit__warns_with_the_worst_series() -> None:
    frame = rows()
    frame.loc[10:29, "y"] = np.nan
    pipeline = make_pipeline()

    result = check_gaps(frame, pipeline)
    lenient = check_gaps(frame, make_pipeline(checks={"max_missing_share": 0.2}))

    assert (result.passed, result.is_blocking, lenient.passed) == (False, False, True)
    assert result.figures["missing_share"] == pytest.approx(20 / 180)
    assert "most in 'a' (22.2%)" in result.reason


@pytest.mark.parametrize(
    ("now", "lag", "passed"),
    [("2024-01-01", 20, False), ("2023-03-15", 4, True), ("2023-03-19", 8, False)],
)
def test_check_freshness__steps_behind_what_can_be_there(now: str, lag: int, passed: bool) -> None:
    frame = rows()
    frame = frame[frame["ds"] <= "2023-03-11"]

    result = check_freshness(frame, make_pipeline(), QUARTER, now=pd.Timestamp(now))

    assert (result.figures["lag_steps"], result.passed) == (lag, passed)


def test_check_freshness__one_series_stale__passes_and_is_counted() -> None:
    frame = rows()
    frame = frame[(frame["unique_id"] == "a") | (frame["ds"] < "2023-02-01")]

    result = check_freshness(frame, make_pipeline(), QUARTER, now=LATER)

    assert (result.passed, result.figures["stale_series"]) == (True, 1)
    assert "1 of 2 series" in result.reason
