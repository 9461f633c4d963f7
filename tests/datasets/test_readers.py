"""Reading sources: four formats, one content; every bad cell is named and nothing of it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ts_forecast.datasets.readers import read_source, read_static, source_files
from ts_forecast.errors import SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipeline, parse_pipeline
from ts_forecast.settings import Settings

RIGHT = "unique_id,ds,y\n" + "".join(f"a,2024-01-0{day},{day}.5\n" for day in range(1, 8))


def pipeline(**changes: Any) -> Pipeline:
    source = {"files": "raw/*"} | changes.pop("source", {})
    content = {
        "name": "shop",
        "source": source,
        "frequency": "D",
        "horizon": 7,
        "start": "2024-01-01",
        "models": ["NHITS", "SeasonalNaive"],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def write(folder: Path, content: str | bytes, name: str = "shop.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def broken(line: int, text: str) -> str:
    """The right file with one line of it replaced; lines count from 1, the header is 1."""
    lines = RIGHT.splitlines()
    lines[line - 1] = text
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (broken(4, "a,2024-13-03,1"), r"row 4, column 'ds': '2024-13-03' is no timestamp"),
        (broken(5, "a,soon,1"), r"row 5, column 'ds': 'soon' is no timestamp"),
        (broken(5, "a,,1"), r"row 5, column 'ds': an empty cell is no timestamp"),
        (
            broken(3, "a,2024-01-02T06:00,1"),
            r"row 3, column 'ds': .* off the grid of frequency 'D'",
        ),
        (broken(6, "a,2024-01-05,many"), r"row 6, column 'y': 'many' is no number"),
        (broken(6, 'a,2024-01-05,"1,5"'), r"row 6, column 'y': '1,5' is no number"),
        (broken(6, "a,2024-01-05,inf"), r"row 6, column 'y': 'inf' is infinite"),
        (broken(6, "a,2024-01-05,1e999"), r"row 6, column 'y': '1e999' is (no number|infinite)"),
        (broken(6, ",2024-01-05,1"), r"row 6, column 'unique_id': .* is no identifier"),
        (broken(6, f"{'x' * 256},2024-01-05,1"), r"row 6, column 'unique_id'.* longer than 255"),
        (broken(6, "a\0b,2024-01-05,1"), r"row 6, column 'unique_id'.* NUL"),
        (broken(6, "a,2024-01-05T00:00:00Z,1"), r"row 6, column 'ds': .* another time zone"),
        (broken(6, "a,1500-01-05,1"), r"row 6, column 'ds': .* outside of 1700|no timestamp"),
        (broken(6, "a,2024-01-03,1"), r"rows 4 and 6: series 'a' has two values at 2024-01-03"),
        (broken(6, "a,2024-01-05"), r"no readable csv file.*Expected 3 columns"),
        (
            broken(1, "unique_id,ds,Y"),
            r"no column 'y', named by source\.target_column.*Did you mean",
        ),
        (broken(1, "unique_id,y,y"), r"the column 'y' stands twice"),
        ("", r"the file is empty"),
        ("unique_id,ds,y\n", r"a header and no rows"),
        (RIGHT.replace("a,", "é,").encode("latin-1"), r"this is not utf-8"),
        (RIGHT.encode("utf-16"), r"this is not utf-8"),
    ],
)
def test_read_source__bad_csv__names_file_row_and_column(
    content: str | bytes, pattern: str, tmp_path: Path
) -> None:
    path = write(tmp_path, content)

    with pytest.raises(SourceError, match=pattern) as caught:
        read_source(path, pipeline())

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["shop.parquet", "shop.feather", "shop.json", "shop.csv"])
def test_read_source__truncated_or_another_format__is_refused(name: str, tmp_path: Path) -> None:
    frame = read_source(write(tmp_path, RIGHT), pipeline())
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    elif name.endswith("json"):
        path.write_text(frame.to_json(orient="records", date_format="iso")[:-40])
    elif name.endswith("parquet"):
        frame.to_parquet(path)
        path.write_bytes(path.read_bytes()[:-30])
    else:
        frame.to_feather(path)
        path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(SourceError, match=name):
        read_source(path, pipeline())


def test_read_source__four_formats__same_frame(tmp_path: Path) -> None:
    expected = read_source(write(tmp_path, RIGHT), pipeline())
    expected.to_parquet(tmp_path / "a.parquet")
    expected.to_feather(tmp_path / "a.feather")
    records = json.loads(expected.to_json(orient="records", date_format="iso"))
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))

    for name in ("a.parquet", "a.feather", "a.json", "a.jsonl"):
        frame = read_source(tmp_path / name, pipeline())
        pd.testing.assert_frame_equal(frame, expected, check_dtype=name[-1] != "l")


def test_read_source__zones__become_utc(tmp_path: Path) -> None:
    hours = "".join(f"a,2024-01-01T0{hour}:00:00+01:00,{hour}\n" for hour in range(1, 5))
    frame = read_source(write(tmp_path, f"unique_id,ds,y\n{hours}"), pipeline(frequency="h"))

    assert frame["ds"].iloc[0] == pd.Timestamp("2024-01-01 00:00")


def test_read_source__booleans_as_target__are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame(
        {"unique_id": "a", "ds": pd.date_range("2024-01-01", periods=3), "y": True}
    ).to_parquet(path)

    with pytest.raises(SourceError, match="row 1, column 'y': True is a boolean"):
        read_source(path, pipeline())


def test_read_source__wide__stacks_series_with_their_promotions(tmp_path: Path) -> None:
    wide = "DATE,QTY_a,QTY_b,PROMO_a,PROMO_b,note\n2024-01-01,1,2,0,1,x\n2024-01-02,,4,1,0,y\n"
    pipe = pipeline(
        source={
            "time_column": "DATE",
            "wide": {
                "target": "QTY_{unique_id}",
                "exogenous": {"promotion": "PROMO_{unique_id}"},
                "ignore": ["note"],
            },
        },
        exogenous={"future": ["promotion"]},
    )

    frame = read_source(write(tmp_path, wide), pipe)

    assert frame["unique_id"].tolist() == ["a", "a", "b", "b"]
    np.testing.assert_array_equal(frame["y"], [1, np.nan, 2, 4])
    assert frame["promotion"].tolist() == [0, 1, 1, 0]


def test_read_source__wide_without_a_promotion_column__names_the_series(tmp_path: Path) -> None:
    pipe = pipeline(
        source={"wide": {"target": "QTY_{unique_id}", "exogenous": {"promo": "PROMO_{unique_id}"}}},
        exogenous={"future": ["promo"]},
    )
    path = write(tmp_path, "ds,QTY_a,QTY_b,PROMO_a\n2024-01-01,1,2,0\n")

    with pytest.raises(SourceError, match="series 'b' has no column for 'promo'"):
        read_source(path, pipe)


def test_source_files__nothing_matches__names_pattern_and_folder(settings: Settings) -> None:
    with pytest.raises(SourceError, match=r"source\.files: no file matches 'raw/\*'"):
        source_files(pipeline(), settings)


def test_read_static__twice_or_missing__is_refused(settings: Settings) -> None:
    pipe = pipeline(source={"static": {"files": "raw/stores.csv"}}, exogenous={"static": ["size"]})
    raw = settings.data_dir / "raw"
    raw.mkdir(parents=True)

    write(raw, "unique_id,size\na,1\na,2\n", "stores.csv")
    with pytest.raises(SourceError, match=r"stores\.csv, row 3: series 'a' stands twice"):
        read_static(pipe, settings)
    write(raw, "unique_id,size\na,1\nb,\n", "stores.csv")
    with pytest.raises(SourceError, match=r"stores\.csv, row 3, column 'size'"):
        read_static(pipe, settings)


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("nord_pool", "epf/NP.csv", 52_416),
        ("pasta", "pasta_sales/hierarchical_sales_data.csv", 118 * 1_798),
    ],
)
def test_read_source__real_files__every_row(
    name: str, file: str, rows: int, shared_data: Path
) -> None:
    pipe = load_pipeline(Path(__file__).parents[2] / "benchmarks" / "pipelines" / f"{name}.yaml")

    frame = read_source(shared_data / file, pipe)

    assert len(frame) == rows
    assert frame["ds"].is_monotonic_increasing or name == "pasta"


def test_read_source__real_file_with_an_unnamed_last_column__is_read(shared_data: Path) -> None:
    pipe = pipeline(
        source={
            "time_column": "Date",
            "id_column": None,
            "target_column": "Prices",
            "time_format": "%Y/%m/%d %H:%M",
        },
        frequency="h",
        start="2011-01-01",
    )

    assert len(read_source(shared_data / "epf" / "BE.csv", pipe)) == 52_416
