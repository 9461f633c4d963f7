"""The deployment's database: what its URL says stands, and what it refuses is said in one line."""

from __future__ import annotations

import secrets

import pyarrow as pa
import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from ts_forecast.db.arrow import append_rows, read_arrow
from ts_forecast.db.database import open_database
from ts_forecast.db.engine import create_engine
from ts_forecast.errors import DatabaseError
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


def test_open_database__role_without_rights__says_what_its_owner_must_do(
    empty_database_url: str,
) -> None:
    role = f"guest_{secrets.token_hex(4)}"
    owner = create_engine(empty_database_url)
    with owner.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
    url = make_url(empty_database_url).set(username=role)
    try:
        with pytest.raises(DatabaseError, match=r"permission denied.*CREATE SCHEMA dagster"):
            open_database(
                Settings(_env_file=None, database_url=url.render_as_string(hide_password=False))
            )
    finally:
        with owner.begin() as connection:
            connection.execute(text(f"DROP ROLE {role}"))
        owner.dispose()


def test_open_database__read_url__is_where_the_read_engine_reads(
    settings: Settings, empty_database_url: str
) -> None:
    database = open_database(
        Settings(
            _env_file=None,
            home=settings.home,
            database_url=settings.database_url,
            database_read_url=empty_database_url,
        )
    )
    try:
        with database.read_engine.connect() as connection:
            found = connection.scalar(text("SELECT current_database()"))
            assert found == make_url(empty_database_url).database
            assert connection.scalar(text("SHOW transaction_read_only")) == "on"
        with database.engine.connect() as connection:
            assert connection.scalar(text("SHOW transaction_read_only")) == "off"
    finally:
        database.dispose()


def test_open_database__no_read_url__reads_the_same_database_and_cannot_write(
    settings: Settings,
) -> None:
    database = open_database(settings)
    try:
        with database.read_engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM experiments")) == 0
            with pytest.raises(DBAPIError, match="read-only"):
                connection.execute(text("INSERT INTO experiments (experiment_name) VALUES ('a')"))
    finally:
        database.dispose()
