"""Publishing beside readers, writers, vacuums, backups and other hands."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.predictions.slices import LEAF, QUARTER, count, detached, make_owners, publish, table
from ts_forecast.db import partitions, short_locks
from ts_forecast.db.engine import transaction
from ts_forecast.errors import PublishError
from ts_forecast.predictions.slice import slice_version


@pytest.fixture(autouse=True)
def owners(engine: Engine) -> None:
    """An experiment, a run and a model for rows to refer to."""
    make_owners(engine)


@contextmanager
def backup(engine: Engine) -> Iterator[None]:
    """What pg_dump holds from its first second to its last: a read lock on every table."""
    with engine.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        connection.execute(text(f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE"))
        yield


@contextmanager
def beside(work: object, *arguments: object) -> Iterator[None]:
    """Call ``work`` again and again in a thread; its first error is raised at the end."""
    stop, errors = threading.Event(), list[BaseException]()

    def loop() -> None:
        try:
            while not stop.is_set():
                work(*arguments)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def test_publish_slice__readers_poll__see_whole_slices_and_hardly_wait(engine: Engine) -> None:
    publish(engine, table(3000))
    seen, waits = set[int](), list[float]()

    def read() -> None:
        begun = time.monotonic()
        with engine.connect() as connection:
            seen.add(count(connection))
        waits.append(time.monotonic() - begun)

    with beside(read), beside(read):
        for attempt in range(8):
            publish(engine, table(5000 if attempt % 2 else 3000, float(attempt + 1)))

    assert seen == {3000, 5000}
    assert max(waits) < 2, "readers waited for a writer"


@pytest.mark.parametrize("first, second", [("models", "runs"), ("runs", "models")])
def test_publish_slice__tables_are_written_in_either_order__nobody_is_shot(
    engine: Engine, first: str, second: str
) -> None:
    finished = list[float]()

    def track() -> None:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {first} SET tags = '{{}}'"))
            time.sleep(0.02)
            connection.execute(text(f"UPDATE {second} SET tags = '{{}}'"))
        finished.append(time.monotonic())

    # Without a pause between its transactions: the tables are locked all the while.
    with beside(track):
        for attempt in range(5):
            publish(engine, table(500, float(attempt)))

    with engine.connect() as connection:
        assert count(connection) == 500
    # A lock that publishing waits for keeps others waiting no longer than one deadlock of ours.
    assert max(np.diff(finished)) < 2


def test_publish_slice__leaf_is_vacuumed__waits_for_it_and_keeps_no_reader_waiting(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "ATTEMPTS", 1)
    publish(engine, table(3000))
    waits = list[float]()

    def read() -> None:
        begun = time.monotonic()
        with engine.connect() as connection:
            count(connection)
        waits.append(time.monotonic() - begun)

    with ThreadPoolExecutor() as pool, engine.connect() as vacuum, beside(read):
        # The lock of a vacuum; an automatic one is ended by who waits for it.
        vacuum.execute(text(f"LOCK TABLE {LEAF} IN SHARE UPDATE EXCLUSIVE MODE"))
        publishing = pool.submit(publish, engine, table(2000, 1.0))
        time.sleep(1.5)
        assert not publishing.done()
        vacuum.rollback()
        assert publishing.result().changed

    with engine.connect() as connection:
        assert count(connection) == 2000
        # Swapped, and not filled under the readers.
        assert (
            connection.scalar(
                text(f"SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = '{LEAF}'")
            )
            == 0
        )
    assert max(waits) < 1


@pytest.mark.parametrize("is_first", [True, False])
def test_publish_slice__backup_runs__publishes_all_the_same(
    engine: Engine, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "ATTEMPTS", 2)
    if not is_first:
        publish(engine, table(300))
    with backup(engine):
        assert publish(engine, table(400, 1.0)).changed

        with engine.connect() as connection:
            assert count(connection) == 400
        assert not publish(engine, table(400, 1.0)).changed

    publish(engine, table(500, 2.0))
    with engine.connect() as connection:
        assert count(connection) == 500
        # What could not be dropped beside the backup is gone.
        assert detached(connection) == []


def test_publish_slice__writer_keeps_runs_locked__leaves_the_old_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "ATTEMPTS", 2)
    publish(engine, table(300))
    with engine.connect() as other:
        other.execute(text("UPDATE runs SET run_description = 'x'"))

        with pytest.raises(PublishError, match=r"another session kept its lock.*db activity"):
            publish(engine, table(400, 1.0))

        with engine.connect() as connection:
            assert count(connection) == 300
    assert publish(engine, table(400, 1.0)).changed


@pytest.mark.parametrize("name", [LEAF, partitions.quarter_table(QUARTER)])
def test_publish_slice__partition_detached_by_hand__is_not_dropped(
    engine: Engine, name: str
) -> None:
    publish(engine, table(300))
    parent = partitions.PARENT if name != LEAF else partitions.quarter_table(QUARTER)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {parent} DETACH PARTITION {name}"))

    with pytest.raises(PublishError, match=rf"{name} is there and no partition"):
        publish(engine, table(400, 1.0))

    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM {name}")) == 300
        assert detached(connection) == []


def test_publish_slice__run_that_published_is_soft_deleted__rows_keep_their_lineage(
    engine: Engine,
) -> None:
    publish(engine, table(300))
    with transaction(engine) as session:
        session.execute(
            text(
                "UPDATE runs SET status = 'failed', deleted_at = now(), lifecycle_stage = 'deleted'"
            )
        )

    assert not publish(engine, table(300)).changed

    with Session(engine) as session:
        version = slice_version(session, 1, QUARTER)
        assert version is not None
        assert (version.rows, version.run_id) == (300, 1)
        assert (
            session.scalar(text("SELECT count(*) FROM predictions JOIN runs USING (run_id)")) == 300
        )


def test_publish_slice__leaf__has_the_parents_keys_and_validated_references(engine: Engine) -> None:
    publish(engine, table(300))

    with engine.connect() as connection:
        constraints = connection.execute(
            text(
                "SELECT contype::text, count(*), bool_and(convalidated), bool_and(conparentid <> 0) "
                "FROM pg_constraint WHERE conrelid = to_regclass(:leaf) AND contype IN ('f', 'p') "
                "GROUP BY contype ORDER BY contype"
            ),
            {"leaf": LEAF},
        ).all()
        plan = "\n".join(
            connection.scalars(
                text(
                    "EXPLAIN SELECT * FROM predictions WHERE experiment_id = 1 "
                    "AND prediction_date >= '2024-01-01' AND prediction_date < '2024-04-01'"
                )
            )
        )

    assert [tuple(row) for row in constraints] == [("f", 3, True, True), ("p", 1, True, True)]
    assert LEAF in plan
    assert "Append" not in plan
