"""A migrated database on either server, filled for the upkeep's tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from ts_forecast.db import migrate
from ts_forecast.db.engine import create_engine

OWNERS = (
    "INSERT INTO experiments (experiment_name) VALUES ('shop')",
    "INSERT INTO runs (experiment_id, run_name, run_fingerprint) VALUES (1, 'r', 'f')",
    "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
    "model_file_path) VALUES (1, 'm', 'MLP', 'neuralforecast', '{}', 'x')",
)


@pytest.fixture(params=["embedded 18", "Debian's 15"])
def migrated(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database at the newest revision, on either server."""
    if request.param == "embedded 18":
        yield request.getfixturevalue("engine")
        return
    server: Engine = request.getfixturevalue("debian_server")
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        names = connection.scalars(text("SELECT datname FROM pg_database")).all()
        if "template_upkeep" not in names:
            connection.execute(text("CREATE DATABASE template_upkeep TEMPLATE template0"))
            template = create_engine(_url(server, "template_upkeep"))
            migrate.upgrade(template)
            template.dispose()
        connection.execute(text("DROP DATABASE IF EXISTS upkeep WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE upkeep TEMPLATE template_upkeep"))
    engine = create_engine(_url(server, "upkeep"))
    yield engine
    engine.dispose()


@pytest.fixture
def plain(debian_server: Engine) -> Iterator[Engine]:
    """A login without any attribute, on a migrated database that it owns."""
    with debian_server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS kept WITH (FORCE)"))
        connection.execute(text("DROP ROLE IF EXISTS keeper"))
        connection.execute(text("CREATE ROLE keeper LOGIN"))
        connection.execute(text("CREATE DATABASE kept OWNER keeper TEMPLATE template0"))
    url = debian_server.url.set(username="keeper", database="kept")
    engine = create_engine(url.render_as_string(hide_password=False))
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def quiet_url(postgres_url: str) -> Iterator[str]:
    """A migrated database for all tests of a module that leave nothing in it."""
    address = make_url(postgres_url).set(drivername="postgresql", database="postgres")
    with psycopg.connect(
        address.render_as_string(hide_password=False), autocommit=True
    ) as connection:
        connection.execute("CREATE DATABASE quiet TEMPLATE template_ts_forecast")
        url = make_url(postgres_url).set(database="quiet")
        yield url.render_as_string(hide_password=False)
        connection.execute("DROP DATABASE quiet WITH (FORCE)")


@pytest.fixture
def quiet(quiet_url: str) -> Iterator[Engine]:
    """An engine on it, whose connections end with the test."""
    engine = create_engine(quiet_url)
    yield engine
    engine.dispose()


@pytest.fixture
def owned(migrated: Engine) -> Engine:
    """A database with an experiment, a run and a model for rows to refer to."""
    with migrated.begin() as connection:
        for statement in OWNERS:
            connection.execute(text(statement))
    return migrated


def _url(server: Engine, database: str) -> str:
    return server.url.set(database=database).render_as_string(hide_password=False)
