"""Whatever is wrong with the input, ingesting it says where and leaves neither row nor file behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, func, select

from ts_forecast.datasets.profile import profile_dataset, profile_table
from ts_forecast.datasets.quarter import current_dataset, ingest_quarters, load_panel
from ts_forecast.db.engine import transaction
from ts_forecast.errors import SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipeline, parse_pipeline
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.tables.dataset import Dataset

Q1 = Quarter(2024, 1)
LINES = [
    "unique_id,ds,y",
    *(f"a,{day:%Y-%m-%d},1.5" for day in pd.date_range("2024-01-01", "2024-03-31")),
]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "pipelines"


def pipeline(**changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "raw/shop.*"} | changes.pop("source", {}),
        "frequency": "D",
        "horizon": 7,
        "start": "2024-01-01",
        "models": ["NHITS", "SeasonalNaive"],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def raw(settings: Settings, content: bytes | str, name: str = "shop.csv") -> Path:
    path = settings.data_dir / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def with_line(number: int, line: str) -> str:
    """The right file with another line; the header is line 1."""
    return "\n".join([*LINES[: number - 1], line, *LINES[number:]])


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (with_line(1, "unique_id,ds,Y"), "no column 'y'.*Did you mean 'Y'"),
        (with_line(9, "a,2024-01-99,1"), "row 9, column 'ds': '2024-01-99' is no timestamp"),
        (with_line(9, "a,2024-01-08T01:00,1"), "row 9, column 'ds'.* off the grid of .*'D'"),
        (with_line(9, "a,2024-01-08T00:00Z,1"), "row 9, column 'ds'.* another time zone"),
        (with_line(9, "a,2099-01-08,1"), "column 'y'.*2099-01-08.* in the future of the file"),
        (with_line(9, "a,2024-01-01,1"), "rows 2 and 9: series 'a' has two values at 2024-01-01"),
        (with_line(9, "a,2024-01-08,much"), "row 9, column 'y': 'much' is no number"),
        (with_line(9, "a,2024-01-08,-inf"), "row 9, column 'y': '-inf' is infinite"),
        (with_line(9, "a\0,2024-01-08,1"), "row 9, column 'unique_id'.* NUL"),
        (with_line(9, f"{'i' * 300},2024-01-08,1"), "row 9, column 'unique_id'.* longer than 255"),
        (with_line(9, "a,2024-01-08,"), "2024-Q1: series 'a' has no y at 2024-01-08"),
        ("", "the file is empty"),
        (LINES[0] + "\n", "a header and no rows"),
        ("\n".join(LINES).replace("a,", "ö,").encode("latin-1"), "this is not utf-8"),
    ],
)
def test_ingest_quarters__bad_file__leaves_nothing(
    engine: Engine, settings: Settings, content: bytes | str, pattern: str
) -> None:
    path = raw(settings, content)

    with pytest.raises(SourceError, match=pattern) as caught:
        ingest_quarters(engine, settings, pipeline(), [Q1])

    assert str(path) in str(caught.value) or "Pipeline shop" in str(caught.value)
    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0
    assert [p for p in settings.data_dir.rglob("*") if p.is_file()] == [path]


def test_ingest_quarters__second_of_two_files_is_bad__leaves_nothing(
    engine: Engine, settings: Settings
) -> None:
    raw(settings, "\n".join(LINES))
    raw(settings, "PAR1 and then no more", "shop.parquet")

    with pytest.raises(SourceError, match=r"shop\.parquet: .*truncated"):
        ingest_quarters(engine, settings, pipeline(), [Q1])

    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0
    assert not (settings.data_dir / "processed").exists()


def test_ingest_quarters__four_formats__one_content(engine: Engine, settings: Settings) -> None:
    days = pd.date_range("2024-01-01", "2024-03-31")
    y = np.random.default_rng(0).lognormal(sigma=40, size=len(days))
    y[5] = np.nan
    frame = pd.DataFrame({"unique_id": "a", "ds": days, "y": y})
    records = [
        {"unique_id": "a", "ds": f"{day:%Y-%m-%d}", "y": None if np.isnan(value) else value}
        for day, value in zip(days, y.tolist(), strict=True)
    ]
    folder = raw(settings, "", "nothing").parent
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet")
    frame.to_feather(folder / "a.feather")
    (folder / "a.json").write_text(json.dumps(records))
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)))

    hashes = {}
    for kind in ("csv", "parquet", "feather", "json", "jsonl"):
        pipe = pipeline(name=kind, source={"files": f"raw/a.{kind}"}, missing="ffill")
        hashes[kind] = ingest_quarters(engine, settings, pipe, [Q1])[Q1].content_hash

    assert len(set(hashes.values())) == 1, hashes


def test_ingest_quarters__wide_with_static_columns__are_loaded_together(
    engine: Engine, settings: Settings
) -> None:
    days = pd.date_range("2024-01-01", "2024-06-30")
    wide = pd.DataFrame({"day": days, "sold_a": range(len(days)), "sold_b": 2.0})
    raw(settings, wide.to_csv(index=False))
    static = raw(settings, "unique_id,size\nb,20\na,10\nclosed,5\n", "stores.csv")
    pipe = pipeline(
        source={
            "time_column": "day",
            "wide": {"target": "sold_{unique_id}"},
            "static": {"files": "raw/stores.csv"},
        },
        exogenous={"static": ["size"]},
    )
    quarters = [Q1, Quarter(2024, 2)]

    first = ingest_quarters(engine, settings, pipe, quarters)
    with transaction(engine) as session:
        panel = load_panel(session, pipe, *quarters)
        dataset = current_dataset(session, pipe, Q1)
        assert dataset is not None
        profile = profile_table(profile_dataset(session, dataset, pipe)).set_index("column")
    assert panel.unique_ids == ("a", "b")
    assert panel.static is not None
    assert panel.static.loc[["a", "b"], "size"].tolist() == [10, 20]
    assert profile["role"].to_dict() == {
        "unique_id": "id",
        "ds": "timestamp",
        "y": "target",
        "size": "static",
    }
    assert profile.loc["y", ["missing", "min", "max"]].tolist() == [0, 0, 90]

    # Other static values are no restatement of the observations, but they count.
    static.write_text("unique_id,size\nb,20\na,99\n")
    second = ingest_quarters(engine, settings, pipe, quarters)
    assert [second[q].version for q in quarters] == [first[q].version for q in quarters]
    with transaction(engine) as session:
        panel = load_panel(session, pipe, *quarters)
    assert panel.static is not None
    assert panel.static.loc["a", "size"] == 99


def test_ingest_quarters__stored_file_damaged__forced_again_mends_it(
    engine: Engine, settings: Settings
) -> None:
    raw(settings, "\n".join(LINES))
    version = ingest_quarters(engine, settings, pipeline(), [Q1])[Q1]
    content = version.path.read_bytes()
    version.path.write_bytes(content[: len(content) // 2])

    again = ingest_quarters(engine, settings, pipeline(), [Q1], force=True)[Q1]

    assert (again.file_hash, version.path.read_bytes()) == (version.file_hash, content)


@pytest.mark.parametrize(
    ("source", "changes", "quarter", "rows", "series"),
    [
        (
            "epf/PJM.csv",
            {
                "source": {
                    "time_column": "Date",
                    "id_column": None,
                    "target_column": "Zonal COMED price",
                    "time_format": "%Y/%m/%d %H:%M",
                },
                "frequency": "h",
                "start": "2013-01-01",
                "exogenous": {"future": ["System load forecast"]},
            },
            Quarter(2014, 2),
            91 * 24,
            1,
        ),
        (
            "victoria/vic_electricity.csv",
            {
                "source": {"time_column": "Time", "id_column": None, "target_column": "Demand"},
                "frequency": "30min",
                "horizon": 48,
                "start": "2012-01-01",
                "exogenous": {"future": ["Temperature"]},
            },
            Quarter(2013, 3),
            92 * 48,
            1,
        ),
        ("epf/NP.csv", BENCHMARKS / "nord_pool.yaml", Quarter(2017, 1), 90 * 24, 1),
        (
            "pasta_sales/hierarchical_sales_data.csv",
            BENCHMARKS / "pasta.yaml",
            Quarter(2017, 2),
            # It has no Easter Sunday.
            90 * 118,
            118,
        ),
    ],
)
def test_ingest_quarters__real_files__every_row_of_the_quarter(
    engine: Engine,
    settings: Settings,
    shared_data: Path,
    source: str,
    changes: dict[str, Any] | Path,
    quarter: Quarter,
    rows: int,
    series: int,
) -> None:
    target = settings.data_dir / "raw" / Path(source).name
    target.parent.mkdir(parents=True)
    target.symlink_to(shared_data / source)
    if isinstance(changes, Path):
        pipe = load_pipeline(changes)
    else:
        named = changes["source"] | {"files": f"raw/{target.name}"}
        pipe = pipeline(**(changes | {"source": named}))
    quarters = list(quarter_range(quarter, quarter.shift(1)))

    versions = ingest_quarters(engine, settings, pipe, quarters)

    version = versions[quarter]
    # A series whose history ends keeps its rows as the file has them.
    assert version.rows == rows
    assert version.series == series
    with transaction(engine) as session:
        panel = load_panel(session, pipe, quarters[0], quarters[1])
    assert panel.n_series == series
    assert panel.ds.min() == pd.Timestamp(quarter.start)
