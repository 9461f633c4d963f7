"""Rows of a query, on SQLite and PostgreSQL: what is polled, what is read, what never shows."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, make_url, text

from ts_forecast.configuration.secrets import Keyring, new_key
from ts_forecast.configuration.values import set_value
from ts_forecast.datasets.readers import read_source, source_files
from ts_forecast.datasets.sql_rows import SqlRows, rows_sha256, sql_rows
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import PipelineError, SourceError, StorageError
from ts_forecast.operations.pipeline_check import check_pipeline_file
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.settings import Settings

TABLE = "CREATE TABLE sales (shop TEXT, day {day}, amount {amount}, updated_at {moment})"
QUERY = "SELECT shop AS unique_id, day AS ds, amount AS y, updated_at FROM sales;"


def shop(url: str, query: str = QUERY) -> Pipeline:
    sql = {"url": url, "query": query, "watermark": "updated_at"}
    content = {"source": {"sql": sql}, "frequency": "D", "horizon": 7, "start": "2023-01-01"}
    return parse_pipeline({"name": "shop", "models": ["SeasonalNaive"]} | content, origin="shop")


def query_of(url: str, settings: Settings, query: str = QUERY) -> SqlRows:
    rows = sql_rows(shop(url, query), settings)
    assert rows is not None
    return rows


@pytest.fixture
def lite(tmp_path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.execute(text(TABLE.format(day="TEXT", amount="REAL", moment="INTEGER")))
        connection.execute(
            text(
                "INSERT INTO sales VALUES ('a', '2023-01-01', 1.5, 1), ('a', '2023-01-02', NULL, 2)"
            )
        )
    return engine


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home")


def test_poll__added_changed_and_removed_rows__give_another_mark(
    lite: Engine, plain: Settings
) -> None:
    marks = []
    for statement in (
        "SELECT 1",
        "INSERT INTO sales VALUES ('b', '2023-01-01', 2, 2)",
        "UPDATE sales SET amount = 3, updated_at = 3 WHERE shop = 'b'",
        "DELETE FROM sales WHERE shop = 'a' AND amount IS NULL",
        "UPDATE sales SET amount = 3",
    ):
        with lite.begin() as connection:
            connection.execute(text(statement))
        marks.append(query_of(str(lite.url), plain).poll())

    assert [mark[0] for mark in marks] == [2, 3, 3, 2, 2]
    assert len(set(marks)) == 4 and marks[3] == marks[4]


def test_snapshot__read_once__stays_what_it_was(lite: Engine, plain: Settings) -> None:
    rows = query_of(str(lite.url), plain)
    first = rows.snapshot
    with lite.begin() as connection:
        connection.execute(text("INSERT INTO sales VALUES ('b', '2023-01-01', 2, 9)"))

    assert rows.snapshot is first and first.mark[0] == first.table.num_rows == 2
    assert query_of(str(lite.url), plain).snapshot.sha256 != first.sha256
    assert (str(rows), rows.name) == ("sql:shop", "sql")


def test_read_source__postgres_types__are_those_of_a_file(
    engine: Engine, settings: Settings
) -> None:
    # A zone with a change of clocks in these days.
    there = engine.url.update_query_dict({"options": "-ctimezone=Europe/Berlin"})
    kinds = {"day": "timestamptz", "amount": "numeric(20, 4)", "moment": "timestamptz"}
    with engine.begin() as connection:
        connection.execute(text(TABLE.format(**kinds)))
        connection.execute(
            text(
                "INSERT INTO sales SELECT 'a', day, extract(day FROM day) + 0.25, now() "
                "FROM generate_series(timestamptz '2023-03-20 00:00Z', '2023-04-02 00:00Z', '1 day')"
                " AS day UNION ALL SELECT 'b', '2023-03-20 00:00Z', NULL, now()"
            )
        )
    pipeline = shop("env:SHOP_SALES_URL")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_SALES_URL", there.render_as_string(hide_password=False))
        frame = read_source(source_files(pipeline, settings)[0].path, pipeline)

    days = pd.date_range("2023-03-20", "2023-04-02")
    expected = pd.DataFrame({"unique_id": "a", "ds": days.as_unit("ns"), "y": days.day + 0.25})
    a = frame[frame["unique_id"] == "a"].sort_values("ds", ignore_index=True)
    pd.testing.assert_frame_equal(a, expected, check_dtype=False)
    assert np.isnan(frame.loc[frame["unique_id"] == "b", "y"]).all()


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        ("SELECT * FROM nowhere", "sql:shop: source.sql cannot be read: .*nowhere"),
        ("SELECT shop, day FROM sales", "sql:shop: source.sql cannot be read: .*updated_at"),
        ("SELECT shop AS unique_id, updated_at FROM sales", "sql:shop: there is no column 'ds'"),
        ("SELECT *, day AS ds FROM sales", "sql:shop: there is no column 'y'"),
        (QUERY.replace(";", " WHERE 1 = 0"), "sql:shop: the query of source.sql gives no row"),
        (QUERY.replace("amount", "'much'"), "sql:shop, row 1, column 'y': 'much' is no number"),
        (QUERY.replace("day", "'soon'"), "sql:shop, row 1, column 'ds': 'soon' is no timestamp"),
        (QUERY.replace("day", "'2023-01-01'"), "rows 1 and 2: series 'a' has two values"),
    ],
)
def test_read_source__wrong_query_or_rows__names_the_query(
    lite: Engine, plain: Settings, query: str, pattern: str
) -> None:
    pipeline = shop(str(lite.url), query)

    with pytest.raises((SourceError, StorageError), match=pattern):
        for file in source_files(pipeline, plain):
            read_source(file.path, pipeline)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:geheim@host/db",
        "postgresql://me@host/db?password=geheim",
        "geheim",
        "env:",
        "secret:../geheim",
    ],
)
def test_parse_pipeline__url_with_a_password_or_none__is_refused_without_showing_it(
    url: str,
) -> None:
    with pytest.raises(PipelineError, match=r"source\.sql: url: ") as caught:
        shop(url)

    assert "geheim" not in str(caught.value)


def test_poll__login_that_is_refused__shows_no_password(
    engine: Engine, plain: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = make_url("postgresql://me:geheim@127.0.0.1:9/db?connect_timeout=2")
    monkeypatch.setenv("SHOP_SALES_URL", url.render_as_string(hide_password=False))
    rows = query_of("env:SHOP_SALES_URL", plain)

    with pytest.raises(StorageError, match="sql:shop: source.sql cannot be read") as caught:
        rows.poll()

    assert "geheim" not in "".join(traceback.format_exception(caught.value)) + repr(rows)
    file = tmp_path / "shop.yaml"
    file.write_text(
        "source: {sql: {url: 'env:SHOP_NOWHERE', query: SELECT 1 AS x, watermark: x}}\n"
        "frequency: D\nhorizon: 1\nstart: 2023-01-01\nmodels: [SeasonalNaive]\n"
    )
    assert "SHOP_NOWHERE, which is not set" in (check_pipeline_file(file, plain) or "")


def test_poll__secret_of_the_deployment__is_found(
    lite: Engine, engine: Engine, settings: Settings
) -> None:
    keyed = Settings(
        _env_file=None,
        home=settings.home,
        database_url=settings.database_url,
        secret_keys=new_key(),
    )
    rows = query_of("secret:shop.sales", keyed)
    with pytest.raises(StorageError, match=r"source\.sql\.url: .*shop\.sales"):
        rows.poll()
    in_transaction(
        engine,
        lambda session: set_value(session, "shop.sales", str(lite.url), keyring=Keyring(keyed)),
    )

    assert rows.poll()[0] == 2


VALUES: list[st.SearchStrategy[Any]] = [
    st.none() | st.integers(-(2**60), 2**60),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.text(max_size=5),
    st.none()
    | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(lambda d: d.replace(tzinfo=UTC)),
]


@given(
    st.lists(st.tuples(*VALUES), min_size=1, max_size=8).flatmap(
        lambda rows: st.tuples(st.just(rows), st.permutations(rows))
    )
)
def test_rows_sha256__any_order__is_the_same_and_of_other_rows_another(
    both: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]],
) -> None:
    rows, mixed = both

    def table(of: list[tuple[Any, ...]]) -> pa.Table:
        kinds = (pa.int64(), pa.float64(), pa.string(), pa.timestamp("us", "UTC"))
        columns = zip(*of, strict=True)
        return pa.table(
            {f"c{i}": pa.array(c, k) for i, (c, k) in enumerate(zip(columns, kinds, strict=True))}
        )

    assert rows_sha256(table(rows)) == rows_sha256(table(mixed))
    assert rows_sha256(table(rows)) != rows_sha256(table([*rows, rows[0]]))
