"""What concerns the files together: claims, restatements, bounds, gaps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ts_forecast.datasets.validation import check_claim, examine, merge
from ts_forecast.errors import DatasetError, SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter

Q1, Q2 = Quarter(2024, 1), Quarter(2024, 2)


def pipeline(**changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "raw/*"} | changes.pop("source", {}),
        "frequency": "D",
        "horizon": 7,
        "start": "2024-01-01",
        "models": ["NHITS", "SeasonalNaive"],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def days(first: str, last: str, value: float = 1.0, unique_id: str = "a") -> pd.DataFrame:
    return pd.DataFrame({"unique_id": unique_id, "ds": pd.date_range(first, last), "y": value})


def written(folder: Path, moment: str, name: str = "shop.csv") -> Path:
    path = folder / name
    path.touch()
    seconds = pd.Timestamp(moment, tz="UTC").timestamp()
    os.utime(path, (seconds, seconds))
    return path


def test_check_claim__observed_after_the_file_was_written__names_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, "2024-03-10 06:00")

    check_claim(path, days("2024-03-01", "2024-03-10"), pipeline())
    with pytest.raises(SourceError) as caught:
        check_claim(path, days("2024-03-01", "2024-03-12"), pipeline())

    message = str(caught.value)
    assert f"{path}, column 'y': series 'a' has an observation at 2024-03-11" in message
    assert "last written at 2024-03-10 06:00 UTC (2 such rows in all)" in message


def test_check_claim__clock_of_a_zone_ahead_of_utc__is_no_future(tmp_path: Path) -> None:
    # Written at 15:10 in Tokyo, with Tokyo's hours up to 15:00.
    path = written(tmp_path, "2024-03-10 06:10")
    hours = pd.date_range("2024-03-10", "2024-03-10 15:00", freq="h")
    frame = pd.DataFrame({"unique_id": "a", "ds": hours, "y": 1.0})

    check_claim(path, frame, pipeline(frequency="h"))


def test_check_claim__rows_known_ahead__are_no_observation(tmp_path: Path) -> None:
    frame = days("2024-03-01", "2024-04-30")
    frame.loc[frame["ds"] > "2024-03-10", "y"] = np.nan

    check_claim(written(tmp_path, "2024-03-10 06:00"), frame, pipeline())


@pytest.mark.parametrize(
    ("name", "last", "is_refused"),
    [
        ("shop-2024-03-10.csv", "2024-03-10", False),
        ("shop-2024-03-10.csv", "2024-03-11", True),
        ("shop-2024-03-09.csv", "2024-03-10", True),
    ],
)
def test_check_claim__date_in_the_name__counts_with_its_day(
    name: str, last: str, is_refused: bool, tmp_path: Path
) -> None:
    pipe = pipeline(source={"as_of": r"(\d{4}-\d\d-\d\d)"})
    path = written(tmp_path, "2030-01-01", name)

    if is_refused:
        with pytest.raises(SourceError, match="claims to run to 2024-03-"):
            check_claim(path, days("2024-03-01", last), pipe)
    else:
        check_claim(path, days("2024-03-01", last), pipe)


@pytest.mark.parametrize("name", ["shop.csv", "shop-2024-99-99.csv"])
def test_check_claim__no_date_in_the_name__is_refused(name: str, tmp_path: Path) -> None:
    pipe = pipeline(source={"as_of": r"(\d{4}-\d\d-\d\d)"})

    with pytest.raises(SourceError, match=r"as_of .* finds no date in the file's name"):
        check_claim(written(tmp_path, "2030-01-01", name), days("2024-03-01", "2024-03-02"), pipe)


def test_merge__later_file__replaces_rows_whole() -> None:
    early = days("2024-01-01", "2024-01-04").assign(promo=1.0)
    late = days("2024-01-03", "2024-01-05", 2.0).assign(promo=np.nan)

    history = merge([early, late], pipeline())

    assert (history.restated, history.outside) == (2, 0)
    assert history.frame["y"].tolist() == [1, 1, 2, 2, 2]
    # Not a mix: the later row has no promotion, so there is none.
    assert history.frame["promo"].isna().tolist() == [False, False, True, True, True]


def test_merge__outside_of_start_and_end__is_left_out_and_counted() -> None:
    history = merge([days("2023-12-25", "2024-02-10")], pipeline(end="2024-01-31"))

    assert (history.frame["ds"].min(), history.frame["ds"].max()) == (
        pd.Timestamp("2024-01-01"),
        pd.Timestamp("2024-01-31"),
    )
    assert history.outside == 7 + 10


def test_merge__known_ahead_after_the_end__is_kept_without_observations() -> None:
    pipe = pipeline(end="2024-01-31", exogenous={"future": ["promo"]})

    frame = merge([days("2024-01-01", "2024-02-20").assign(promo=1.0)], pipe).frame

    assert frame["ds"].max() == pd.Timestamp("2024-02-07")
    assert frame.loc[frame["y"].notna(), "ds"].max() == pd.Timestamp("2024-01-31")


def test_examine__gaps__are_counted_by_quarter() -> None:
    frame = days("2024-01-01", "2024-06-30").assign(promo=0.0)
    frame.loc[frame["ds"] == "2024-02-01", "y"] = np.nan
    frame.loc[frame["ds"] == "2024-05-01", "promo"] = np.nan
    # A row that lacks altogether, and a series that ends early: what follows is no gap.
    frame = frame[frame["ds"] != "2024-05-02"]
    frame = pd.concat([frame, days("2024-01-01", "2024-03-31", unique_id="b").assign(promo=0.0)])
    pipe = pipeline(missing="ffill", exogenous={"historic": ["promo"]})

    reports = examine(merge([frame], pipe), pipe, [Q1, Q2])

    assert (reports[Q1].observed, reports[Q1].missing, reports[Q1].series) == (90 + 91, 1, 2)
    assert (reports[Q2].observed, reports[Q2].missing, reports[Q2].series) == (90, 1, 1)
    assert (reports[Q1].missing_exogenous, reports[Q2].missing_exogenous) == (0, 2)


@pytest.mark.parametrize(
    ("column", "pattern"),
    [
        ("y", "2024-Q2: series 'a' has no y at 2024-05-01.*missing: interpolate"),
        ("promo", "2024-Q2: series 'a' has no promo at 2024-05-01"),
    ],
)
def test_examine__policy_error__names_the_first_gap(column: str, pattern: str) -> None:
    frame = days("2024-01-01", "2024-06-30").assign(promo=0.0)
    frame.loc[frame["ds"].isin(pd.DatetimeIndex(["2024-05-01", "2024-05-09"])), column] = np.nan
    pipe = pipeline(exogenous={"historic": ["promo"]})

    with pytest.raises(SourceError, match=pattern):
        examine(merge([frame], pipe), pipe, [Q1, Q2])
    # The quarter before it has no gap.
    assert examine(merge([frame], pipe), pipe, [Q1])[Q1].missing == 0


def test_examine__nothing_observed__is_refused() -> None:
    frame = days("2024-01-01", "2024-06-30", np.nan)

    with pytest.raises(DatasetError, match="no series has a complete observation"):
        examine(merge([frame], pipeline()), pipeline(), [Q1])
