"""Quarters of data: versions, restatements, claims, gaps; and bad input leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from ts_forecast.datasets.profile import profile_dataset, profile_table
from ts_forecast.datasets.quarter import (
    current_dataset,
    datasets_are_current,
    ingest_quarters,
    load_panel,
    missing_quarters,
)
from ts_forecast.datasets.store import hash_table, store_frame
from ts_forecast.db.engine import transaction
from ts_forecast.errors import DatasetError, SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.tables.dataset import Dataset

YEAR = list(quarter_range(Quarter(2024, 1), Quarter(2024, 4)))


def pipeline(**changes: Any) -> Pipeline:
    source = {"files": "raw/*.csv"} | changes.pop("source", {})
    content = {
        "name": "shop",
        "source": source,
        "frequency": "D",
        "horizon": 7,
        "start": "2024-01-01",
        "models": ["NHITS", "SeasonalNaive"],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def history(
    shift: float = 0.0, first: str = "2024-01-01", last: str = "2024-12-31"
) -> pd.DataFrame:
    days = pd.date_range(first, last)
    parts = [
        pd.DataFrame(
            {"unique_id": name, "ds": days, "y": np.arange(len(days)) + shift, "promo": 0.0}
        )
        for name in ("a", "b")
    ]
    return pd.concat(parts, ignore_index=True)


def write(settings: Settings, frame: pd.DataFrame, name: str = "2024.csv") -> Path:
    raw = settings.data_dir / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    frame.to_csv(raw / name, index=False)
    return raw / name


def stored(settings: Settings) -> list[Path]:
    return sorted((settings.data_dir / "processed").rglob("*.parquet"))


def rows(engine: Engine) -> int:
    with transaction(engine) as session:
        return int(session.scalar(select(func.count()).select_from(Dataset)) or 0)


def test_ingest_quarters__year__one_version_a_quarter(engine: Engine, settings: Settings) -> None:
    write(settings, history())

    versions = ingest_quarters(engine, settings, pipeline(), YEAR)

    assert [versions[q].rows for q in YEAR] == [182, 182, 184, 184]
    assert {version.version for version in versions.values()} == {"1.0.0"}
    with transaction(engine) as session:
        dataset = current_dataset(session, pipeline(), YEAR[0])
        assert dataset is not None
        parent = session.get_one(Dataset, dataset.parent_dataset_id)
        assert (parent.dataset_type, parent.file_hash) == (
            "raw",
            dataset.metadata_["sources"][0]["sha256"],
        )


def test_ingest_quarters__again__parses_nothing_and_adds_nothing(
    engine: Engine, settings: Settings
) -> None:
    path = write(settings, history())
    ingest_quarters(engine, settings, pipeline(), YEAR)
    before, files = rows(engine), stored(settings)
    # What would not parse is not looked at, as long as size and time stand.
    stat = path.stat()
    path.write_bytes(b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    versions = ingest_quarters(engine, settings, pipeline(), YEAR)

    assert not any(version.changed for version in versions.values())
    assert (rows(engine), stored(settings)) == (before, files)
    with transaction(engine) as session:
        assert datasets_are_current(session, settings, pipeline(), YEAR)


def test_ingest_quarters__later_file_restates__new_version_of_that_quarter_only(
    engine: Engine, settings: Settings
) -> None:
    write(settings, history())
    first = ingest_quarters(engine, settings, pipeline(), YEAR)
    write(settings, history(1000, "2024-05-01", "2024-05-31"), "2025-01-correction.csv")

    second = ingest_quarters(engine, settings, pipeline(), YEAR)

    assert [second[q].changed for q in YEAR] == [False, True, False, False]
    assert second[YEAR[1]].version == "2.0.0"
    assert second[YEAR[1]].report["restated"] == 62
    with transaction(engine) as session:
        restated = current_dataset(session, pipeline(), YEAR[1])
        assert restated is not None
        assert restated.parent_dataset_id == first[YEAR[1]].dataset_id
        panel = load_panel(session, pipeline(), YEAR[1], YEAR[1])
    frame = panel.to_frame([])
    assert (frame.loc[frame["ds"].dt.month == 5, "y"] >= 1000).all()
    assert (frame.loc[frame["ds"].dt.month != 5, "y"] < 1000).all()
    # The version before is still there, byte for byte.
    assert first[YEAR[1]].path.exists()


def test_ingest_quarters__gap_under_the_policy_error__names_the_first(
    engine: Engine, settings: Settings
) -> None:
    frame = history()
    write(settings, frame[~((frame["unique_id"] == "b") & (frame["ds"] == "2024-05-03"))])

    with pytest.raises(SourceError, match=r"2024-Q2: series 'b' has no y at 2024-05-03"):
        ingest_quarters(engine, settings, pipeline(), YEAR)

    assert rows(engine) == 0
    assert stored(settings) == []
    versions = ingest_quarters(engine, settings, pipeline(missing="ffill"), YEAR)
    assert versions[YEAR[1]].report["missing"] == 1


def test_ingest_quarters__observation_after_the_files_claim__is_refused(
    engine: Engine, settings: Settings
) -> None:
    pipe = pipeline(source={"as_of": r"(\d{4}-\d{2}-\d{2})"})
    write(settings, history(), "shop-2024-11-30.csv")

    with pytest.raises(
        SourceError, match=r"observation at 2024-12-01.*claims to run to 2024-11-30"
    ):
        ingest_quarters(engine, settings, pipe, YEAR)

    assert (rows(engine), stored(settings)) == (0, [])


def test_ingest_quarters__observation_after_the_file_was_written__is_refused(
    engine: Engine, settings: Settings
) -> None:
    path = write(settings, history())
    os.utime(path, (0, pd.Timestamp("2024-06-30", tz="UTC").timestamp()))

    with pytest.raises(SourceError, match=r"2024-07-01.*was last written at 2024-06-30"):
        ingest_quarters(engine, settings, pipeline(), YEAR)


def test_ingest_quarters__quarter_without_data__says_what_there_is(
    engine: Engine, settings: Settings
) -> None:
    write(settings, history(last="2024-05-31"))

    with pytest.raises(DatasetError, match=r"no observation in 2024-Q3; it runs from 2024-01-01"):
        ingest_quarters(engine, settings, pipeline(), YEAR)
    found = ingest_quarters(engine, settings, pipeline(), YEAR, only_available=True)
    assert list(found) == YEAR[:2]


def test_load_panel__promotions_known_ahead__reach_past_the_quarter(
    engine: Engine, settings: Settings
) -> None:
    pipe = pipeline(exogenous={"future": ["promo"]})
    write(settings, history())
    ingest_quarters(engine, settings, pipe, YEAR[:1])

    with transaction(engine) as session:
        panel = load_panel(session, pipe, YEAR[0], YEAR[0])

    assert panel.ds.max() == pd.Timestamp("2024-04-07")
    assert panel.grid.timestamps(panel.last_observed).max() == pd.Timestamp("2024-03-31")
    assert len(panel.issued(pipe.slice_plan(YEAR[0]), pipe))


def test_load_panel__damaged_or_missing_file__is_refused(
    engine: Engine, settings: Settings
) -> None:
    write(settings, history())
    path = ingest_quarters(engine, settings, pipeline(), YEAR)[YEAR[2]].path
    content = path.read_bytes()

    path.write_bytes(content[:-1] + b"?")
    with (
        pytest.raises(DatasetError, match="is not what was stored"),
        transaction(engine) as session,
    ):
        load_panel(session, pipeline(), YEAR[0], YEAR[3])
    path.unlink()
    with pytest.raises(DatasetError, match="is missing"), transaction(engine) as session:
        load_panel(session, pipeline(), YEAR[0], YEAR[3])
    # Ingesting again heals it, with the same content.
    ingest_quarters(engine, settings, pipeline(), YEAR)
    assert path.read_bytes() == content


def test_load_panel__hole_in_the_range__names_it(engine: Engine, settings: Settings) -> None:
    write(settings, history())
    ingest_quarters(engine, settings, pipeline(), [YEAR[0], YEAR[2]])

    with (
        pytest.raises(DatasetError, match="2024-Q2 was never ingested"),
        transaction(engine) as session,
    ):
        load_panel(session, pipeline(), YEAR[0], YEAR[2])
    with transaction(engine) as session:
        assert missing_quarters(session, pipeline(), YEAR) == [YEAR[1], YEAR[3]]


def test_profile_dataset__twice__same_rows(engine: Engine, settings: Settings) -> None:
    pipe = pipeline(exogenous={"future": ["promo"]})
    write(settings, history().assign(promo=lambda f: f.index % 2))
    ingest_quarters(engine, settings, pipe, YEAR[:1])

    tables = []
    for _ in range(2):
        with transaction(engine) as session:
            dataset = current_dataset(session, pipe, YEAR[0])
            assert dataset is not None
            features = profile_dataset(session, dataset, pipe)
            tables.append((profile_table(features), [f.feature_id for f in features]))

    profile = tables[0][0].set_index("column")
    pd.testing.assert_frame_equal(tables[0][0], tables[1][0])
    assert tables[0][1] == tables[1][1]
    assert profile.loc["y", ["role", "min", "max", "mean"]].tolist() == ["target", 0, 90, 45]
    assert profile.loc["promo", "role"] == "future"


@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(range(40)))
def test_ingest_quarters__rows_in_any_order__same_content(tmp_path: Path, order: list[int]) -> None:
    from ts_forecast.datasets.readers import read_source
    from ts_forecast.datasets.store import _canonical
    from ts_forecast.datasets.validation import merge

    frame = history(last="2024-01-20")
    hashes = set()
    for number, part in enumerate((frame, frame.iloc[order])):
        path = tmp_path / f"{number}.csv"
        part.to_csv(path, index=False)
        merged = merge([read_source(path, pipeline())], pipeline())
        hashes.add(hash_table(_canonical(merged.frame)))

    assert len(hashes) == 1


def test_store_frame__same_rows__same_bytes(tmp_path: Path) -> None:
    frame = history()[["unique_id", "ds", "y"]]

    one, other = (store_frame(tmp_path / name, "q", frame) for name in ("one", "other"))

    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.path.name == other.path.name
