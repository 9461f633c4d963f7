"""Migrating from within a process: what it leaves behind, and how it is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from ts_forecast.db import migrate
from ts_forecast.db.engine import create_engine, lock_key
from ts_forecast.errors import DatabaseError


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    """An engine on a database without tables."""
    engine = create_engine(empty_database_url)
    yield engine
    engine.dispose()


def test_upgrade__done__leaves_the_pools_connections_as_they_were(empty: Engine) -> None:
    with empty.connect() as connection:
        before = connection.scalar(text("SHOW lock_timeout"))

    migrate.upgrade(empty)

    with empty.connect() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == before
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.scalar(text(held)) == 0


def test_upgrade__another_process_migrates__waits_for_it(empty: Engine) -> None:
    with empty.connect() as other:
        key = {"key": lock_key("migrations")}
        other.execute(text("SELECT pg_advisory_lock(:key)"), key)
        waiting = threading.Thread(target=migrate.upgrade, args=(empty,))
        waiting.start()
        # Longer than the lock_timeout of the tables.
        time.sleep(6)
        assert waiting.is_alive()
        assert migrate.current(empty) is None
        other.execute(text("SELECT pg_advisory_unlock(:key)"), key)
    waiting.join(timeout=30)

    assert migrate.current(empty) == migrate.head()


def test_downgrade__table_in_use__stands_before_the_step_that_was_refused(engine: Engine) -> None:
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM experiments"))

        with pytest.raises(DatabaseError, match=r"lock timeout.*pg_stat_activity"):
            migrate.downgrade(engine, "base")

    # Whole steps went or stand; which, is a matter of the locks that each takes.
    assert migrate.current(engine) in {step.revision for step in migrate.history(engine)}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM experiments")) == 0
    migrate.upgrade(engine)
    migrate.check_revision(engine)


def test_upgrade__unknown_revision__is_one_clear_error(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match=r"nowhere.*db history"):
        migrate.upgrade(engine, "nowhere")


def test_check_revision__made_by_a_newer_version__does_not_say_upgrade(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(DatabaseError, match=r"9999, which this version does not know.*Install"):
        migrate.check_revision(engine)


def test_history__lists_every_revision_and_marks_the_databases(engine: Engine) -> None:
    steps = migrate.history(engine)

    assert steps[0].revision == migrate.head()
    assert [step.revision for step in steps if step.is_current] == [migrate.head()]
    assert all(step.summary for step in steps)
