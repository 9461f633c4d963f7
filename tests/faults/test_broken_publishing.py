"""Whatever breaks while a slice is published: its writer, its connections, the server, the disk.

After each, readers see the whole old slice or the whole new one, the error says so, and the next writer
publishes and clears what was left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Engine, create_engine, text

from tests.db.cutting_proxy import CuttingProxy, When
from tests.predictions.slices import LEAF, content, detached, make_owners, publish, table
from ts_forecast.db import migrate
from ts_forecast.db.embedded import data_folder, start_embedded, stop_embedded
from ts_forecast.db.engine import create_engine as create_our_engine
from ts_forecast.db.engine import exclusive
from ts_forecast.errors import PublishError
from ts_forecast.predictions.slice import PREDICTION_SCHEMA
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]
OLD, NEW = (300, {0.0}), (500, {2.0})
# So many rows take a second to copy and another for their keys.
MANY = 200_000
PUBLISH = """
import sys
import pyarrow as pa
from ts_forecast.db.engine import create_engine
from ts_forecast.predictions.slice import publish_slice
from ts_forecast.quarters import Quarter
url, rows = sys.argv[1:]
with pa.memory_map(rows) as source:
    table = pa.ipc.open_file(source).read_all()
publish_slice(create_engine(url), experiment_id=1, run_id=1, quarter=Quarter(2024, 1), rows=table)
"""


@pytest.fixture
def slice_of(engine: Engine) -> Engine:
    """An engine on a database whose slice is ``OLD``."""
    make_owners(engine)
    publish(engine, table(300))
    return engine


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for a socket, whose path must stay short."""
    with tempfile.TemporaryDirectory(prefix="proxy-", dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def observer(engine: Engine) -> Iterator[Callable[[str], list[int]]]:
    """Asks for pids on a connection of its own, as often as it takes until there are some."""
    watching = create_engine(engine.url, isolation_level="AUTOCOMMIT")

    def wait_for(query: str) -> list[int]:
        deadline = time.monotonic() + 60
        with watching.connect() as connection:
            while time.monotonic() < deadline:
                if pids := connection.scalars(text(query)).all():
                    return list(pids)
                time.sleep(0.002)
        pytest.fail(f"nobody was seen by {query}")

    yield wait_for
    watching.dispose()


def busy(pattern: str) -> str:
    return (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        f"AND query ILIKE '{pattern}%' AND state = 'active' AND pid <> pg_backend_pid()"
    )


LOCK_HOLDER = (
    "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND datname = current_database() "
    f"AND EXISTS ({busy('COPY')})"
)


def end_backend(engine: Engine, pid: int) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


def next_writer_publishes(engine: Engine) -> None:
    assert publish(engine, table(*(500, 2.0))).changed
    assert content(engine) == NEW
    with engine.connect() as connection:
        assert detached(connection) == []


def test_publish_slice__writer_killed_in_its_copy__old_slice_stands(
    slice_of: Engine, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.arrow"
    with pa.OSFile(str(rows), "wb") as sink, pa.ipc.new_file(sink, PREDICTION_SCHEMA) as writer:
        writer.write_table(table(MANY, 1.0))
    url = slice_of.url.render_as_string(hide_password=False)

    with observer(slice_of) as wait_for:
        writing = subprocess.Popen([sys.executable, "-c", PUBLISH, url, str(rows)], cwd=REPOSITORY)
        wait_for(busy("COPY"))
        writing.send_signal(signal.SIGKILL)
        writing.wait()

    assert content(slice_of) == OLD
    with slice_of.connect() as connection:
        assert len(detached(connection)) == 1
    with exclusive(slice_of, "slice", LEAF):
        pass
    next_writer_publishes(slice_of)


@pytest.mark.parametrize("statement", ["COPY", "ALTER TABLE %ADD PRIMARY KEY"])
def test_publish_slice__backend_terminated__old_slice_stands_and_the_error_says_so(
    slice_of: Engine, statement: str
) -> None:
    with observer(slice_of) as wait_for, ThreadPoolExecutor() as pool:
        publishing = pool.submit(publish, slice_of, table(MANY, 1.0))
        for pid in wait_for(busy(statement)):
            end_backend(slice_of, pid)
        with pytest.raises(PublishError, match=r"terminat.*still see the previous one"):
            publishing.result()

    assert content(slice_of) == OLD
    next_writer_publishes(slice_of)


def test_publish_slice__lock_is_lost_and_another_publishes__one_of_both_stands(
    slice_of: Engine,
) -> None:
    with observer(slice_of) as wait_for, ThreadPoolExecutor() as pool:
        first = pool.submit(publish, slice_of, table(MANY, 1.0))
        for pid in wait_for(LOCK_HOLDER):
            end_backend(slice_of, pid)
        # Nothing keeps this one out any more.
        second = pool.submit(publish, slice_of, table(500, 2.0))
        outcomes = [future.exception() for future in (first, second)]

    assert all(error is None or isinstance(error, PublishError) for error in outcomes)
    assert content(slice_of) in [(MANY, {1.0}), NEW]
    publish(slice_of, table(300))
    next_writer_publishes(slice_of)


@pytest.mark.parametrize("when", [When.BEFORE_THE_ANSWER, When.BEFORE_COMMIT_ARRIVES])
def test_publish_slice__connection_lost_around_the_commit__says_what_readers_see(
    slice_of: Engine, short_folder: Path, when: When
) -> None:
    is_committed = when is When.BEFORE_THE_ANSWER
    with CuttingProxy(Path(str(slice_of.url.query["host"])), short_folder) as proxy:
        url = slice_of.url.update_query_dict({"host": str(short_folder)})
        through = create_our_engine(url.render_as_string(hide_password=False))
        # What only the swap says.
        proxy.cut_next_commit(when, only_after=f"ATTACH PARTITION {LEAF} ")
        if is_committed:
            assert publish(through, table(500, 2.0)).changed
        else:
            with pytest.raises(PublishError, match="still see the previous one"):
                publish(through, table(500, 2.0))
        assert proxy.cuts == 1
        through.dispose()

    assert content(slice_of) == (NEW if is_committed else OLD)
    publish(slice_of, table(300))
    next_writer_publishes(slice_of)


def test_publish_slice__server_shut_down_immediately__old_slice_stands_when_it_is_back(
    tmp_path: Path,
) -> None:
    settings = Settings(_env_file=None, home=tmp_path)
    engine = create_our_engine(start_embedded(settings))
    try:
        migrate.upgrade(engine)
        make_owners(engine)
        publish(engine, table(300))
        postmaster = int((data_folder(settings) / "postmaster.pid").read_text().split()[0])
        with observer(engine) as wait_for, ThreadPoolExecutor() as pool:
            publishing = pool.submit(publish, engine, table(MANY, 1.0))
            wait_for(busy("COPY"))
            os.kill(postmaster, signal.SIGQUIT)
            with pytest.raises(PublishError, match="still see the previous one"):
                publishing.result()

        start_embedded(settings)

        assert content(engine) == OLD
        next_writer_publishes(engine)
    finally:
        engine.dispose()
        stop_embedded(settings)


@pytest.fixture
def small_volume(engine: Engine) -> Iterator[Engine]:
    """An engine whose new tables lie on a volume of 8 MiB."""
    with engine.connect() as connection:
        data = Path(str(connection.scalar(text("SHOW data_directory"))))
    folder = Path(tempfile.mkdtemp(prefix="volume-", dir="/tmp"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no volume can be mounted here: {mounted.stderr.strip()}")
    name = f"small_{folder.name.removeprefix('volume-').lower()}"
    try:
        os.chown(folder, data.stat().st_uid, data.stat().st_gid)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE TABLESPACE \"{name}\" LOCATION '{folder}'"))
        url = engine.url.update_query_dict({"options": f"-c default_tablespace={name}"})
        small = create_our_engine(url.render_as_string(hide_password=False))
        yield small
        small.dispose()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("DROP TABLE predictions CASCADE"))
            connection.execute(text(f'DROP TABLESPACE "{name}"'))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.mark.parametrize("rows", [40_000, 200_000])
def test_publish_slice__volume_is_full__old_slice_stands_and_its_space_is_given_back(
    small_volume: Engine, rows: int
) -> None:
    make_owners(small_volume)
    publish(small_volume, table(300))

    with pytest.raises(PublishError, match=r"No space left on device.*see the previous one"):
        publish(small_volume, table(rows, 1.0))

    assert content(small_volume) == OLD
    next_writer_publishes(small_volume)
