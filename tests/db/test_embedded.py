"""The private server: started, joined, killed, started again, stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from ts_forecast.db.database import Database, open_database
from ts_forecast.db.embedded import data_folder, start_embedded, stop_embedded
from ts_forecast.errors import DatabaseError
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a server of this test's own, in a folder too long for a socket's path."""
    settings = Settings(_env_file=None, home=tmp_path / ("long" * 20) / "home")
    yield settings
    stop_embedded(settings)


def postmaster(settings: Settings) -> psutil.Process:
    return psutil.Process(
        int((data_folder(settings) / "postmaster.pid").read_text().splitlines()[0])
    )


def count(database: Database) -> int:
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS kept (n int)"))
        connection.execute(text("INSERT INTO kept VALUES (1)"))
        return int(connection.scalar(text("SELECT count(*) FROM kept")) or 0)


def test_start_embedded__killed_and_stopped__keeps_what_was_committed(lone: Settings) -> None:
    first = open_database(lone)
    assert count(first) == 1
    first.engine.dispose()

    postmaster(lone).kill()
    second = open_database(lone)
    assert count(second) == 2
    second.engine.dispose()

    assert stop_embedded(lone)
    assert not stop_embedded(lone)
    third = open_database(lone)
    assert count(third) == 3
    third.engine.dispose()


def test_start_embedded__several_processes_at_once__one_server(lone: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from ts_forecast.settings import Settings; "
        "from ts_forecast.db.embedded import start_embedded; "
        "print(start_embedded(Settings(_env_file=None, home=Path(sys.argv[1]))))"
    )
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(lone.home)], stdout=subprocess.PIPE, cwd=REPOSITORY
        )
        for _ in range(3)
    ]
    urls = {starter.communicate(timeout=60)[0] for starter in starters}

    assert [starter.returncode for starter in starters] == [0, 0, 0]
    assert len(urls) == 1
    # It outlives those who started it.
    assert postmaster(lone).is_running()
    assert start_embedded(lone).encode() in urls.pop()


def test_open_database__nobody_answers__says_where_without_the_password() -> None:
    settings = Settings(
        _env_file=None, database_url="postgresql://someone:s3cret@127.0.0.1:1/forecasts"
    )

    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/forecasts does not answer") as caught:
        open_database(settings)

    assert "s3cret" not in str(caught.value)


def test_open_database__dagsters_tables__have_a_schema_of_their_own(settings: Settings) -> None:
    from sqlalchemy import create_engine

    database = open_database(settings)
    theirs = create_engine(database.dagster_url.get_secret_value())
    try:
        with theirs.connect() as connection:
            assert connection.scalar(text("SELECT current_schema()")) == "dagster"
        with database.engine.connect() as connection:
            assert connection.scalar(text("SELECT current_schema()")) == "public"
            assert connection.scalar(text("SHOW timezone")) == "UTC"
    finally:
        theirs.dispose()
        database.engine.dispose()
