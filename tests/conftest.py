"""Fixtures that every room's tests share: a real PostgreSQL, a deployment's folders, the real data."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from tests.servers import debian_postgres
from ts_forecast.db import migrate
from ts_forecast.db.embedded import start_embedded, stop_embedded
from ts_forecast.db.engine import create_engine
from ts_forecast.settings import Settings

_TEMPLATE = "template_ts_forecast"
# What tests and their children log goes into no file of the checkout, and into no database unasked.
os.environ["LOG_DIR"] = str(Path(tempfile.gettempdir(), f"ts-forecast-tests-{os.getuid()}"))
os.environ["LOG_TO_DATABASE"] = "false"
# A busy host is no fault of ours: pytest-timeout bounds each test, nothing bounds one example.
hypothesis.settings.register_profile("ts_forecast", deadline=None)
hypothesis.settings.load_profile("ts_forecast")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Take Ctrl-C and hand it on to children, also where a shell started us in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded server of this test process, with a migrated template database."""
    settings = Settings(_env_file=None, home=tmp_path_factory.mktemp("postgres"))
    url = start_embedded(settings)
    _create(url, _TEMPLATE, "template0")
    engine = create_engine(_named(url, _TEMPLATE))
    migrate.upgrade(engine)
    engine.dispose()
    yield url
    stop_embedded(settings)


@pytest.fixture(scope="session")
def debian_server() -> Iterator[Engine]:
    """A throwaway server of the distribution's PostgreSQL 15; skips where there is none."""
    with debian_postgres() as engine:
        yield engine


@pytest.fixture(params=["embedded 18", "Debian's 15"])
def empty(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine on an empty database, of either server."""
    if request.param == "embedded 18":
        url = request.getfixturevalue("empty_database_url")
    else:
        url = _fresh(request.getfixturevalue("debian_server"))
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A fresh database without tables."""
    name = f"test_{secrets.token_hex(6)}"
    _create(postgres_url, name, "template0")
    yield _named(postgres_url, name)
    _drop(postgres_url, name)


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A fresh database at the newest revision, for this test alone."""
    name = f"test_{secrets.token_hex(6)}"
    _create(postgres_url, name, _TEMPLATE)
    yield _named(postgres_url, name)
    _drop(postgres_url, name)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on ``database_url``."""
    pool = create_engine(database_url, application_name="tests")
    yield pool
    pool.dispose()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """A deployment's settings: folders of this test, ``database_url`` as its database."""
    return Settings(
        _env_file=None,
        home=tmp_path / "home",
        pipelines_dir=tmp_path / "pipelines",
        data_dir=tmp_path / "data",
        model_dir=tmp_path / "models",
        output_dir=tmp_path / "outputs",
        log_dir=tmp_path / "logs",
        database_url=database_url,
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data; skips where it is absent."""
    given = os.environ.get("TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "SHA256SUMS").exists():
        pytest.skip(f"no real data in {folder}: set TEST_DATA to its folder")
    return folder


def _fresh(server: Engine) -> str:
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS empty WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE empty TEMPLATE template0"))
    return server.url.set(database="empty").render_as_string(hide_password=False)


def _named(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def _create(url: str, name: str, template: str) -> None:
    with _administer(url) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


def _drop(url: str, name: str) -> None:
    with _administer(url) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _administer(url: str) -> psycopg.Connection[tuple[object, ...]]:
    address = make_url(url).set(drivername="postgresql", database="postgres")
    return psycopg.connect(address.render_as_string(hide_password=False), autocommit=True)
