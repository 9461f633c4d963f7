"""Guessing columns and frequencies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ts_forecast.errors import SourceError
from ts_forecast.operations.columns import _guess_frequency, infer_columns


def written(folder: Path, frame: pd.DataFrame, name: str = "file.csv") -> Path:
    path = folder / name
    frame.to_csv(path, index=False)
    return path


def days(count: int = 30) -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=count)


@pytest.mark.parametrize(
    "alias",
    ["15min", "30min", "h", "2h", "6h", "D", "B", "W-SUN", "W-WED", "MS", "ME", "QS-JAN", "QE-FEB"],
)
def test_guess_frequency__regular_stamps__is_theirs(alias: str) -> None:
    found = _guess_frequency(pd.date_range("2021-03-01", periods=60, freq=alias))

    # A quarter has three names, by the month that it starts or ends in.
    assert found is not None
    assert found.split("-")[0] == alias.split("-")[0]
    if alias.startswith("W"):
        assert found == alias


@given(
    alias=st.sampled_from(["h", "D", "W-MON", "MS", "ME"]),
    gaps=st.sets(st.integers(0, 99), max_size=15),
    repeats=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_guess_frequency__gaps_and_repeats__change_nothing(
    alias: str, gaps: set[int], repeats: int
) -> None:
    stamps = pd.date_range("2020-01-01", periods=100, freq=alias).delete(sorted(gaps))
    shuffled = stamps.repeat(repeats)[::-1]

    assert _guess_frequency(shuffled) == alias


@pytest.mark.parametrize(
    "stamps",
    [
        pd.date_range("2000-01-01", periods=20, freq="YS"),
        pd.DatetimeIndex(["2024-01-01", "2024-01-02"]),
        pd.DatetimeIndex(["2024-01-01 00:07", "2024-01-03 11:30", "2024-02-09 04:01"]),
    ],
    ids=["yearly", "two", "irregular"],
)
def test_guess_frequency__nothing_regular__is_none(stamps: pd.DatetimeIndex) -> None:
    assert _guess_frequency(stamps) is None


def test_infer_columns__known_names__in_any_case(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Date": days(), "Sales": 1.5, "temperature": 2.0})

    columns = infer_columns(written(tmp_path, frame, "Shop 1.csv"))

    assert columns.source["time_column"] == "Date"
    assert columns.source["target_column"] == "Sales"
    assert columns.source["id_column"] is None
    assert columns.source["series_name"] == "Shop_1"
    assert columns.frequency == "D"
    assert len(columns.guessed) == 4


def test_infer_columns__strange_names__are_told_by_content(tmp_path: Path) -> None:
    frame = pd.DataFrame({"wann": days(10).repeat(2), "wo": ["nord", "süd"] * 10, "menge": 4})

    columns = infer_columns(written(tmp_path, frame))

    assert columns.source["time_column"] == "wann"
    assert columns.source["id_column"] == "wo"
    assert columns.source["target_column"] == "menge"


def test_infer_columns__parquet__types_decide(tmp_path: Path) -> None:
    path = tmp_path / "data"
    pd.DataFrame({"at": days(), "n": range(30)}).to_parquet(path)

    columns = infer_columns(path, kind="parquet")

    assert columns.source["time_column"] == "at"
    assert columns.source["format"] == "parquet"


def test_infer_columns__row_numbers_called_id__are_no_series(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(20), "ds": days(10).repeat(2), "shop": ["a", "b"] * 10})

    columns = infer_columns(written(tmp_path, frame.assign(y=1.0)))

    assert columns.source["id_column"] == "shop"


def test_infer_columns__pattern_as_target__is_a_wide_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"DATE": days(), "QTY_a": 1, "QTY_b": 2, "PROMO_a": 0})

    columns = infer_columns(written(tmp_path, frame), target_column="QTY_{unique_id}")

    assert columns.source["wide"] == {"target": "QTY_{unique_id}"}
    assert columns.source["id_column"] is None


@pytest.mark.parametrize(
    ("frame", "given_names", "option", "problem"),
    [
        ({"a": range(5), "b": range(5)}, {}, "--time-column", "no column looks like the time"),
        (
            {"from": days(5), "until": days(5), "y": 1},
            {},
            "--time-column",
            "several columns could be the time",
        ),
        ({"ds": days(5), "a": 1, "b": 2}, {}, "--target-column", "several columns could be"),
        ({"ds": days(5), "note": list("abcde")}, {}, "--target-column", "no column looks like"),
        (
            {"ds": days(4).repeat(2), "p": list("abababab"), "q": list("xyxyxyxy"), "y": 1},
            {},
            "--id-column",
            "several columns could be the series",
        ),
        ({"ds": days(3).repeat(2), "y": 1}, {}, "--id-column", "no column looks like the series"),
        ({"ds": days(5), "y": 1}, {"target_column": "z"}, "--target-column", "no column 'z'"),
        ({"ds": days(2), "y": 1}, {}, "--frequency", "fit no frequency"),
    ],
)
def test_infer_columns__ambiguous__asks_by_option(
    tmp_path: Path,
    frame: dict[str, object],
    given_names: dict[str, str],
    option: str,
    problem: str,
) -> None:
    path = written(tmp_path, pd.DataFrame(frame))

    with pytest.raises(SourceError) as caught:
        infer_columns(path, **given_names)

    assert problem in caught.value.problem
    assert str(path) in caught.value.problem
    assert option in caught.value.remedy


def test_infer_columns__bad_timestamp__names_its_row(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("ds,y\n2024-01-01,1\n2024-01-02,2\nyesterday,3\n")

    with pytest.raises(SourceError, match="row 4, column 'ds': 'yesterday'"):
        infer_columns(path)
