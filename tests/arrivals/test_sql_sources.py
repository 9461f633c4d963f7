"""The sensor over a query: what changes in its rows is asked for, quarter by quarter, as of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine, create_engine, text

from tests.arrivals.conftest import Live, days
from ts_forecast.arrivals.look import files_set_aside
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.datasets.sql_rows import sql_rows
from ts_forecast.errors import SourceError
from ts_forecast.quarters import Quarter

DATA = ("datasets", "dataset_features")
SQL = {
    "url": "env:SHOP_SALES_URL",
    "query": "SELECT shop AS unique_id, day AS ds, amount AS y, updated_at FROM sales",
    "watermark": "updated_at",
}
# In words that both servers understand, of a column that is text to one of them.
DAY = "day >= '2023-02-03' AND day < '2023-02-04'"


class Sales:
    """The table of somebody else's database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = 0
        self.run("CREATE TABLE sales (shop text, day timestamp, amount real, updated_at int)")

    def run(self, statement: str) -> None:
        self.clock += 1
        with self.engine.begin() as connection:
            connection.execute(text(statement.replace("NOW", str(self.clock))))

    def add(self, frame: pd.DataFrame) -> None:
        self.clock += 1
        rows = frame.rename(columns={"unique_id": "shop", "ds": "day", "y": "amount"})
        rows.assign(updated_at=self.clock).to_sql(
            "sales", self.engine, if_exists="append", index=False
        )


@pytest.fixture(params=["sqlite", "postgresql"])
def sales(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Sales]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    else:
        engine = create_engine(empty_database_url)
        # The server trusts its socket: this one shows where a password would leak.
        engine = create_engine(engine.url.set(password="geheim-pw"))
    monkeypatch.setenv("SHOP_SALES_URL", engine.url.render_as_string(hide_password=False))
    yield Sales(engine)
    engine.dispose()


@pytest.fixture
def live(make_live: Callable[..., Live], sales: Sales) -> Live:
    return make_live(source={"sql": SQL})


def test_arrivals__rows_of_a_table__changed_quarters_are_asked_for_alone(
    live: Live, sales: Sales
) -> None:
    assert "the query gives no row" in live.settle()
    sales.add(days("2023-01-01", "2023-03-31"))
    sales.add(days("2023-04-01", "2023-05-10"))
    live.settle(only="datasets")
    first = live.news()
    sales.add(days("2023-05-11", "2023-06-30"))
    live.settle(only="datasets")
    more = live.news()
    sales.run(f"UPDATE sales SET amount = amount + 5, updated_at = NOW WHERE {DAY}")
    live.settle(only="datasets")
    restated = live.news()
    # Touched: the rows say nothing new.
    sales.run(f"UPDATE sales SET updated_at = NOW WHERE {DAY}")
    live.settle(only="datasets")
    live.cursor = None
    live.settle(only="datasets")

    assert first == [("2023-Q1", DATA), ("2023-Q2", DATA)]
    assert (more, restated, live.news()) == ([("2023-Q2", DATA)], [("2023-Q1", DATA)], [])
    rebuilt = live.rebuilt("2023-Q1", "2023-Q2", only="datasets")
    assert live.tables("shop")["datasets"] == rebuilt["datasets"]
    rows = sql_rows(live.pipeline, live.settings)
    with live.engine.connect() as connection:
        raw = connection.execute(
            text(
                "SELECT file_path, file_format, file_size_bytes FROM datasets WHERE "
                "dataset_type = 'raw' AND dataset_name LIKE 'shop/%' ORDER BY dataset_id DESC"
            )
        ).all()
        newest = connection.scalar(
            text("SELECT file_hash FROM staging.uploads ORDER BY upload_id DESC LIMIT 1")
        )
        shown = [
            connection.scalar(text(f"SELECT string_agg(t::text, '') FROM {table} t"))
            for table in ("experiments", "datasets", "runs", "staging.uploads", "staging.rejected")
        ]
    assert {tuple(row) for row in raw} == {("sql:shop", "sql", None)} and len(raw) == 3
    assert rows is not None and newest == rows.snapshot.sha256
    assert not any("geheim-pw" in (content or "") for content in shown)


def test_arrivals__bad_row__holds_its_quarters_until_it_is_mended(live: Live, sales: Sales) -> None:
    sales.add(days("2023-01-01", "2023-06-30"))
    live.settle(only="datasets")
    live.news()
    sales.run("INSERT INTO sales VALUES ('a', '2023-07-01 05:00', 1, NOW)")
    live.settle(only="datasets")
    with pytest.raises(SourceError, match="sql:shop was set aside.*off the grid"):
        ingest_quarters(live.engine, live.settings, live.pipeline, [Quarter(2023, 1)], force=True)
    aside = files_set_aside(live.engine, live.settings, live.pipeline)
    sales.run("UPDATE sales SET day = '2023-07-01', updated_at = NOW WHERE day > '2023-07-01'")
    live.settle(only="datasets")

    assert list(aside) == ["sql:shop"] and "column 'ds'" in aside["sql:shop"]
    assert live.news() == [("2023-Q3", DATA)]
    assert [status for _, status in live.uploads()] == ["accepted", "rejected", "accepted"]
    assert files_set_aside(live.engine, live.settings, live.pipeline) == {}


def test_arrivals__database_that_is_away__judges_nothing(
    live: Live, sales: Sales, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sales.add(days("2023-01-01", "2023-03-31"))
    with monkeypatch.context() as patch:
        patch.setenv("SHOP_SALES_URL", f"sqlite:///{tmp_path}/nowhere/shop.db")
        result = live.tick()
    assert result.skip_reason is not None and not result.run_requests
    assert "sql:shop: source.sql cannot be read" in (result.skip_reason.skip_message or "")
    live.settle(only="datasets")

    assert live.news() == [("2023-Q1", DATA)]
