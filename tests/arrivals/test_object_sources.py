"""The sensor over objects of a store: as over files, by what the store says of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from sqlalchemy import text

from tests.arrivals.conftest import Live, days
from ts_forecast.arrivals.look import files_set_aside
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.errors import SourceError
from ts_forecast.places import place
from ts_forecast.quarters import Quarter

DATA = ("datasets", "dataset_features")
FOLDER = "memory://shop-history"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    fsspec.filesystem("memory").store.clear()


def put(name: str, content: pd.DataFrame | str) -> None:
    text = content if isinstance(content, str) else content.to_csv(index=False)
    place(f"{FOLDER}/{name}").write_bytes(text.encode())


@pytest.fixture
def live(make_live: Callable[..., Live]) -> Live:
    return make_live(source={"files": f"{FOLDER}/*.csv"}, settle_seconds=0)


def test_arrivals__objects__new_restated_rewritten_and_bad(live: Live) -> None:
    put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    put("2023-2.csv", days("2023-04-01", "2023-06-30"))
    live.settle(only="datasets")
    first = live.news()
    # The same content under a new time: nothing.
    put("2023-2.csv", days("2023-04-01", "2023-06-30"))
    live.settle(only="datasets")
    rewritten = live.news()
    put("2023-2.csv", days("2023-04-01", "2023-06-30", level=20))
    live.settle(only="datasets")
    restated = live.news()
    put("2023-3.csv", "unique_id,ds,y\na,2023-07-99,1\n")
    live.settle(only="datasets")
    aside = files_set_aside(live.engine, live.settings, live.pipeline)

    assert first == [("2023-Q1", DATA), ("2023-Q2", DATA)]
    assert (rewritten, restated, live.news()) == ([], [("2023-Q2", DATA)], [])
    assert list(aside) == [f"{FOLDER}/2023-3.csv"]
    assert f"{FOLDER}/2023-3.csv, row 2" in aside[f"{FOLDER}/2023-3.csv"]
    assert live.uploads() == [
        ("2023-1.csv", "accepted"),
        ("2023-2.csv", "accepted"),
        ("2023-2.csv", "accepted"),
        ("2023-3.csv", "rejected"),
    ]
    place(f"{FOLDER}/2023-3.csv").unlink()
    assert (
        live.tables("shop")["datasets"]
        == live.rebuilt("2023-Q1", "2023-Q2", only="datasets")["datasets"]
    )
    with live.engine.connect() as connection:
        paths = connection.scalars(
            text("SELECT DISTINCT file_path FROM datasets WHERE dataset_type = 'raw' ORDER BY 1")
        ).all()
    assert paths == [f"{FOLDER}/2023-1.csv", f"{FOLDER}/2023-2.csv"]


def test_arrivals__store_that_does_not_answer__judges_nothing(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("2023-1.csv", days("2023-01-01", "2023-03-31"))
    live.tick()

    def broken(*_: object) -> None:
        raise ConnectionError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.get_filesystem_class("memory"), "get_file", broken)
        result = live.tick()
    assert live.uploads() == []
    live.settle(only="datasets")

    assert result.skip_reason is not None
    assert "no route to host" in (result.skip_reason.skip_message or "")
    assert live.news() == [("2023-Q1", DATA)]


def test_ingest_quarters__no_object_matches__names_the_url(live: Live) -> None:
    with pytest.raises(SourceError, match=rf"no file matches '{FOLDER}/\*\.csv'\."):
        ingest_quarters(live.engine, live.settings, live.pipeline, [Quarter(2023, 1)])
