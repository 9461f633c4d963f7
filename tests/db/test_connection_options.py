"""What a URL says of options stands, for SQL, for Arrow and for Dagster."""

from __future__ import annotations

import pyarrow as pa
from sqlalchemy import Engine, make_url, text

from ts_forecast.db.arrow import append_rows, read_arrow
from ts_forecast.db.database import open_database
from ts_forecast.db.engine import create_engine
from ts_forecast.settings import Settings


def with_options(url: str, options: str) -> str:
    parsed = make_url(url).update_query_dict({"options": options})
    return parsed.render_as_string(hide_password=False)


def test_create_engine__options_of_the_url__hold_for_sql_and_arrow(database_url: str) -> None:
    engine = create_engine(
        with_options(database_url, "-c search_path=shop -c statement_timeout=77s"),
        application_name="a test",
    )
    query = (
        "SELECT current_setting('search_path') AS path, current_setting('TimeZone') AS zone, "
        "current_setting('statement_timeout') AS timeout, "
        "current_setting('application_name') AS name"
    )
    expected = {"path": "shop", "zone": "UTC", "timeout": "77s", "name": "a test"}
    try:
        with engine.begin() as connection:
            assert dict(connection.execute(text(query)).mappings().one()) == expected
            connection.execute(text("CREATE SCHEMA shop"))
            connection.execute(text("CREATE TABLE shelf (n int8)"))
        assert read_arrow(engine, query).to_pylist() == [expected]
        append_rows(engine, "shelf", pa.table({"n": [1]}))
        assert read_arrow(engine, "SELECT n FROM shop.shelf").to_pylist() == [{"n": 1}]
    finally:
        engine.dispose()


def test_create_engine__url_of_another_engine__adds_nothing(engine: Engine) -> None:
    again = create_engine(engine.url.render_as_string(hide_password=False))

    assert again.url.query["options"] == engine.url.query["options"]


def test_open_database__options_of_the_url__keep_dagsters_schema(settings: Settings) -> None:
    assert settings.database_url is not None
    url = with_options(settings.database_url.get_secret_value(), "-c statement_timeout=77s")
    database = open_database(
        Settings(_env_file=None, home=settings.home, database_url=url),
    )
    theirs = create_engine(database.dagster_url.get_secret_value().replace("+psycopg2", "+psycopg"))
    try:
        with theirs.connect() as connection:
            assert connection.scalar(text("SHOW search_path")) == "dagster"
            assert connection.scalar(text("SHOW statement_timeout")) == "77s"
    finally:
        theirs.dispose()
        database.engine.dispose()
