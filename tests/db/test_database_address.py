"""Opening a database that was named: what is wrong with it is said, never its password."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from ts_forecast.db.database import open_database
from ts_forecast.errors import DatabaseError
from ts_forecast.settings import Settings

PASSWORD = "p@ss/w:ord%41"


def settings(url: str) -> Settings:
    return Settings(_env_file=None, database_url=url)  # type: ignore[arg-type]


def role(engine: Engine, name: str) -> str:
    """The URL of a new role that may only connect."""
    with engine.begin() as connection:
        connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"))
    return engine.url.set(username=name, password=PASSWORD).render_as_string(hide_password=False)


def test_open_database__given__has_an_address_without_its_password(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA dagster"))
    database = open_database(settings(role(engine, "reader_of_one")))
    try:
        with database.engine.connect() as connection:
            assert connection.scalar(text("SELECT current_user")) == "reader_of_one"
        assert PASSWORD not in repr(database) + database.address
        dagster = make_url(database.dagster_url.get_secret_value())
        assert (dagster.drivername, dagster.password) == ("postgresql+psycopg2", PASSWORD)
    finally:
        database.engine.dispose()
        with engine.begin() as connection:
            connection.execute(text("DROP ROLE reader_of_one"))


def test_open_database__no_such_database__is_refused(engine: Engine) -> None:
    url = engine.url.set(database="nowhere", password=PASSWORD)

    with pytest.raises(DatabaseError, match=r'database "nowhere" does not exist') as caught:
        open_database(settings(url.render_as_string(hide_password=False)))

    assert PASSWORD not in str(caught.value)


def test_open_database__two_at_once__both_find_dagsters_schema(database_url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        databases = list(pool.map(lambda _: open_database(settings(database_url)), range(4)))
    for database in databases:
        database.engine.dispose()

    address = make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
        row = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'dagster'")
        assert row.fetchone() == (1,)
