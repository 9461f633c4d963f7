"""Sessions, waits and their end, as superuser and as a role that sees only itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from ts_forecast.db.engine import create_engine, exclusive
from ts_forecast.errors import DatabaseError
from ts_forecast.operations.database_activity import lock_waits, running_queries
from ts_forecast.operations.database_connections import idle_connections, terminate
from ts_forecast.operations.database_scope import hidden_note
from ts_forecast.operations.database_statements import slow_statements


def backend(connection: Connection) -> int:
    return int(connection.connection.driver_connection.info.backend_pid)  # type: ignore[union-attr]


@contextmanager
def waiting(quiet: Engine) -> Iterator[tuple[int, int]]:
    """A session that keeps a table, and another that waits for it: their PIDs."""
    pids = list[int]()

    def wait() -> None:
        with quiet.connect() as waiter:
            pids.append(backend(waiter))
            waiter.execute(text("SELECT count(*) FROM runs"))

    thread = threading.Thread(target=wait)
    with quiet.connect() as keeper:
        keeper.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        thread.start()
        try:
            deadline = time.monotonic() + 20
            with quiet.connect() as looker:
                while not lock_waits(looker) and time.monotonic() < deadline:
                    looker.rollback()
                    time.sleep(0.02)
            yield backend(keeper), pids[0]
        finally:
            keeper.rollback()
            thread.join()


@pytest.fixture
def stranger(quiet: Engine) -> Iterator[Engine]:
    """A login that was granted nothing."""
    with quiet.begin() as connection:
        connection.execute(text("CREATE ROLE stranger LOGIN"))
    url = quiet.url.set(username="stranger").render_as_string(hide_password=False)
    pool = create_engine(url)
    yield pool
    pool.dispose()
    with quiet.begin() as connection:
        connection.execute(text("DROP ROLE stranger"))


@contextmanager
def idle(quiet: Engine) -> Iterator[int]:
    """A connection of its own whose client asks nothing; its PID."""
    pool = create_engine(quiet.url.render_as_string(hide_password=False))
    connection = pool.connect()
    try:
        connection.execute(text("SELECT 1"))
        pid = backend(connection)
        connection.rollback()
        yield pid
    finally:
        connection.invalidate()
        connection.close()
        pool.dispose()


def test_lock_waits__one_waits__names_both_and_their_ages(quiet: Engine) -> None:
    with waiting(quiet) as (keeper, waiter), quiet.connect() as connection:
        (found,) = lock_waits(connection)
        queries = {row.pid: row for row in running_queries(connection)}

    assert (found.pid, found.blocking_pid) == (waiter, keeper)
    assert found.lock == "AccessShareLock on runs"
    assert found.query == "SELECT count(*) FROM runs"
    assert found.blocking_state == "idle in transaction"
    assert found.waiting_seconds is not None and 0 <= found.waiting_seconds < 60
    assert (found.blocking_seconds or 0) >= found.waiting_seconds
    assert queries[waiter].wait == "Lock: relation"
    assert queries[keeper].state == "idle in transaction"


def test_running_queries__older_than__leaves_out_the_young_and_the_idle(quiet: Engine) -> None:
    with quiet.connect() as open_one, quiet.connect() as connection, idle(quiet) as rests:
        open_one.execute(text("SELECT 1"))
        pid = backend(open_one)
        time.sleep(0.2)

        assert [row.pid for row in running_queries(connection, older_than=0.1)] == [pid]
        assert running_queries(connection, older_than=60) == []
        assert rests not in [row.pid for row in running_queries(connection)]


def test_running_queries__stranger__is_told_what_is_hidden(quiet: Engine, stranger: Engine) -> None:
    with waiting(quiet) as (keeper, waiter), stranger.connect() as connection:
        rows = {row.pid: row for row in running_queries(connection)}
        waits = lock_waits(connection)
        note = hidden_note(connection)

    assert rows[waiter].state is None and rows[waiter].query == "<insufficient privilege>"
    assert [(row.pid, row.blocking_pid) for row in waits] == [(waiter, keeper)]
    assert "GRANT pg_monitor TO stranger" in note
    with quiet.connect() as connection:
        assert hidden_note(connection) == ""


def test_terminate__idle_for_long__ends_that_one_alone(quiet: Engine) -> None:
    with idle(quiet) as pid, quiet.connect() as working, quiet.connect() as connection:
        working.execute(text("SELECT 1"))
        with exclusive(quiet, "slice", "x"):
            time.sleep(0.3)
            found = idle_connections(connection, older_than=0.2)
            assert [one.pid for one in found] == [pid]
            assert found[0].state == "idle"
            (done,) = terminate(quiet, found)
        assert done.ended
        assert working.scalar(text("SELECT 1")) == 1
        # The slice's writer has its lock still: exclusive gave it back without an error.
        assert idle_connections(connection, older_than=3600) == []


def test_terminate__asked_something_meanwhile__lives(quiet: Engine) -> None:
    pool = create_engine(quiet.url.render_as_string(hide_password=False))
    with pool.connect() as worker, quiet.connect() as connection:
        worker.execute(text("SELECT 1"))
        worker.rollback()
        time.sleep(0.1)
        found = idle_connections(connection, older_than=0.05)
        worker.execute(text("SELECT 2"))
        worker.rollback()

        (done,) = terminate(quiet, found)

        assert (done.ended, done.reason) == (False, "it is at work again, or gone")
        assert worker.scalar(text("SELECT 3")) == 3
    pool.dispose()


def test_terminate__pid_idle_in_its_transaction__is_ended(quiet: Engine) -> None:
    pool = create_engine(quiet.url.render_as_string(hide_password=False))
    keeper = pool.connect()
    keeper.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
    pid = backend(keeper)
    with quiet.connect() as connection:
        time.sleep(0.1)
        assert pid not in [one.pid for one in idle_connections(connection, older_than=0)]
        found = idle_connections(connection, older_than=0.05, pid=pid)
        assert [one.state for one in found] == ["idle in transaction"]

        (done,) = terminate(quiet, found)

        assert done.ended
        assert connection.scalar(text("SELECT count(*) FROM runs")) == 0
    with pytest.raises(OperationalError):
        keeper.execute(text("SELECT 1"))
    keeper.invalidate()
    keeper.close()
    pool.dispose()


def test_terminate__of_another_by_a_stranger__is_refused_in_words(
    quiet: Engine, stranger: Engine
) -> None:
    with idle(quiet) as pid, quiet.connect() as connection, stranger.connect() as theirs:
        time.sleep(0.1)
        (found,) = idle_connections(connection, older_than=0.05, pid=pid)

        (done,) = terminate(stranger, [found])
        with pytest.raises(DatabaseError, match=r"hidden from this role.*pg_monitor"):
            idle_connections(theirs, older_than=0, pid=pid)

        assert not done.ended
        # It does not even see that the session is idle.
        assert "gone" in done.reason or "permission denied" in done.reason


@pytest.mark.parametrize(
    ("query", "age", "pattern"),
    [
        ("SELECT pg_sleep(20)", 0.0, r"is at work.*pg_cancel_backend"),
        ("SELECT 1", 60.0, r"has not been idle for 60 s"),
    ],
)
def test_idle_connections__pid_that_is_not__says_why(
    quiet: Engine, query: str, age: float, pattern: str
) -> None:
    pool = create_engine(quiet.url.render_as_string(hide_password=False))
    worker = pool.connect()
    pid = backend(worker)
    ended = list[BaseException]()

    def work() -> None:
        try:
            worker.execute(text(query))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    with quiet.connect() as connection:
        with pytest.raises(DatabaseError, match=pattern):
            idle_connections(connection, older_than=age, pid=pid)
        with pytest.raises(DatabaseError, match=r"No session of this database has the PID 1\."):
            idle_connections(connection, older_than=0, pid=1)
        connection.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": pid})
    thread.join()
    worker.close()
    pool.dispose()


def test_slow_statements__no_extension__says_how_to_get_it(migrated: Engine) -> None:
    with migrated.connect() as connection:
        is_debian = connection.scalar(text("SHOW server_version_num")) < "180000"
        found = slow_statements(connection)

    assert found.statements == []
    if not is_debian:
        assert "has no pg_stat_statements" in found.remedy
        assert "those over 5s" in found.remedy
        return
    load = "shared_preload_libraries = 'pg_stat_statements' and restart"
    assert load in found.remedy
    assert "CREATE EXTENSION pg_stat_statements;" in found.remedy
    url = migrated.url.update_query_dict({"options": "-c role=readonly_user -c timezone=UTC"})
    reader = create_engine(url.render_as_string(hide_password=False))
    with migrated.begin() as connection:
        connection.execute(text("CREATE EXTENSION pg_stat_statements"))
    # A reader does not see what is loaded; the extension does.
    with reader.connect() as connection:
        assert load in slow_statements(connection).remedy
    reader.dispose()
