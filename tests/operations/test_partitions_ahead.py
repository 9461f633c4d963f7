"""Partitions ahead: beside readers and writers, twice, with rows in the default, on both servers."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from ts_forecast.db import short_locks
from ts_forecast.db.calendar_partitions import (
    AUDIT_LOGS,
    PREDICTIONS,
    SYSTEM_LOGS,
    TABLES,
    CalendarTable,
    create,
)
from ts_forecast.db.engine import create_engine
from ts_forecast.db.partition_list import attached
from ts_forecast.db.periods import Period
from ts_forecast.errors import DatabaseError, LockedError
from ts_forecast.operations.partitions_ahead import ensure_ahead, missing_partitions

NOW = datetime.now(UTC)
MONTH = Period.of(NOW, 1)
LOG = "INSERT INTO system_logs (log_level, log_message, created_at) VALUES ('INFO', :what, :at)"


def log(engine: Engine, *moments: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(text(LOG), [{"what": "x", "at": moment} for moment in moments])


def count(engine: Engine, table: str = "system_logs") -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def names(engine: Engine, table: CalendarTable) -> list[str]:
    with engine.connect() as connection:
        return [part.name for part in attached(connection, table, with_empty=True)]


def test_ensure_ahead__twice__changes_nothing_the_second_time(migrated: Engine) -> None:
    first = list(ensure_ahead(migrated))
    before = [names(migrated, table) for table in TABLES]

    assert list(ensure_ahead(migrated)) == []

    assert [names(migrated, table) for table in TABLES] == before
    assert [part.name for part in first] == sorted(
        [part.name for part in first], key=lambda name: ("audit" in name, "logs" in name, name)
    )
    # Three months and two quarters after the running ones, and the default partitions.
    assert [len(found) for found in before] == [3, 5, 4]
    with migrated.connect() as connection:
        assert missing_partitions(connection) == []


def test_create__partition__has_the_parents_columns_keys_and_bounds(engine: Engine) -> None:
    period = MONTH.shift(7)
    with engine.begin() as connection:
        assert create(connection, SYSTEM_LOGS, period) == 0
        assert create(connection, SYSTEM_LOGS, period) is None

    name = f"public.{SYSTEM_LOGS.partition(period)}"
    with engine.connect() as connection:
        found = {part.name: part for part in attached(connection, SYSTEM_LOGS)}
        constraints = connection.execute(
            text(
                "SELECT contype::text, count(*), bool_and(convalidated) FROM pg_constraint "
                "WHERE conrelid = to_regclass(:name) AND contype IN ('p', 'f', 'c') "
                "GROUP BY 1 ORDER BY 1"
            ),
            {"name": name},
        ).all()
        indexes = connection.scalar(
            text("SELECT count(*) FROM pg_index WHERE indrelid = to_regclass(:name)"),
            {"name": name},
        )
    assert (found[name].start, found[name].end) == (period.start, period.end)
    assert [tuple(row) for row in constraints] == [("c", 2, True), ("f", 1, True), ("p", 1, True)]
    assert indexes == 5
    log(engine, period.start)
    assert count(engine, name) == 1


def test_ensure_ahead__rows_fell_into_the_default__are_moved_and_none_is_lost(
    migrated: Engine,
) -> None:
    past = [MONTH.shift(-back).start for back in range(1, 5)]
    leap = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    year_end = datetime(2023, 12, 31, 23, 59, 59, tzinfo=UTC)
    far = datetime(9999, 1, 1, tzinfo=UTC)
    log(migrated, *past, leap, year_end, far)
    log(migrated, leap)
    with migrated.begin() as connection:
        # Not one of Python's moments.
        connection.execute(text(LOG.replace(":at", "'20000-01-01'")), {"what": "x"})

    made = list(ensure_ahead(migrated, tables=[SYSTEM_LOGS]))

    moved = {part.name: part.moved_rows for part in made if part.moved_rows}
    assert sum(moved.values()) == 7
    assert moved["public.system_logs_2024_02"] == 2
    assert moved["public.system_logs_2023_12"] == 1
    # The far future waits for its time.
    assert count(migrated, "system_logs_default") == 2
    assert count(migrated) == 9


def test_ensure_ahead__reader_in_an_open_transaction__neither_waits(migrated: Engine) -> None:
    with migrated.connect() as reader:
        # The planner prunes to one partition: the locks are the parent's and its.
        query = text(
            "SELECT count(*) FROM system_logs WHERE created_at >= "
            f"'{MONTH.start.isoformat()}' AND created_at < '{MONTH.end.isoformat()}'"
        )
        assert reader.scalar(query) == 0
        reader.scalar(text("SELECT count(*) FROM predictions"))
        held = reader.scalars(
            text(
                "SELECT relation::regclass::text FROM pg_locks WHERE locktype = 'relation' "
                "AND pid = pg_backend_pid()"
            )
        ).all()
        assert "system_logs" in held and "predictions" in held
        assert "system_logs_default" not in held
        begun = time.monotonic()

        made = list(ensure_ahead(migrated, tables=[PREDICTIONS, SYSTEM_LOGS]))

        assert len(made) >= 4
        assert time.monotonic() - begun < 5
        assert reader.scalar(query) == 0


def test_ensure_ahead__reader_has_read_the_default__others_hardly_wait_and_it_is_tried_again(
    migrated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "ATTEMPTS", 2)
    waits, stop = list[float](), threading.Event()
    other = create_engine(migrated.url.render_as_string(hide_password=False))

    def read() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            count(other)
            waits.append(time.monotonic() - begun)

    thread = threading.Thread(target=read)
    with migrated.connect() as reader:
        assert reader.scalar(text("SELECT count(*) FROM system_logs")) == 0
        thread.start()
        begun = time.monotonic()

        with pytest.raises(LockedError, match=r"system_logs is in use.*db activity"):
            list(ensure_ahead(migrated, tables=[SYSTEM_LOGS]))

        seconds = time.monotonic() - begun
        stop.set()
        thread.join()
        assert len(names(migrated, SYSTEM_LOGS)) == 3
    other.dispose()
    # Two attempts of 100 ms with a pause between: a reader behind us waits for one of them.
    assert max(waits) < min(1.0, seconds)

    assert len(list(ensure_ahead(migrated, tables=[SYSTEM_LOGS]))) == 2


def test_ensure_ahead__much_in_the_default__readers_do_not_wait_while_it_is_moved(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO system_logs (log_level, log_message, created_at) "
                "SELECT 'INFO', 'x', CAST(:at AS timestamptz) FROM generate_series(1, 50000)"
            ),
            {"at": MONTH.shift(-2).start},
        )
    waits, stop = list[float](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            with engine.connect() as connection:
                # Of all partitions, the default too.
                connection.execute(text("SELECT 1 FROM system_logs LIMIT 1"))
            waits.append(time.monotonic() - begun)

    thread = threading.Thread(target=read)
    thread.start()
    begun = time.monotonic()
    made = list(ensure_ahead(engine, tables=[SYSTEM_LOGS], until=NOW))
    seconds = time.monotonic() - begun
    stop.set()
    thread.join()

    assert [part.moved_rows for part in made] == [50_000]
    # Moving takes most of the time; were it done under the lock, a reader would wait for all of it.
    assert max(waits) < max(0.3, seconds / 2)


def test_ensure_ahead__beside_writers_and_another_maintainer__each_row_is_there_once(
    engine: Engine,
) -> None:
    written, stop = list[int](), threading.Event()
    moments = [MONTH.shift(back).start for back in range(-4, 1)]

    errors = list[BaseException]()

    def write() -> None:
        try:
            while not stop.is_set():
                log(engine, *moments)
                written.append(len(moments))
        except BaseException as error:
            errors.append(error)

    def maintain() -> None:
        try:
            list(ensure_ahead(engine, tables=[SYSTEM_LOGS, AUDIT_LOGS]))
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    maintainers = [threading.Thread(target=maintain) for _ in range(2)]
    writer.start()
    while not written:
        time.sleep(0.01)
    for thread in maintainers:
        thread.start()
    for thread in maintainers:
        thread.join()
    stop.set()
    writer.join()

    assert errors == []
    assert count(engine) == sum(written)
    assert count(engine, "system_logs_default") == 0
    assert len(names(engine, SYSTEM_LOGS)) == 9


def test_ensure_ahead__partition_was_detached_by_hand__is_left_and_named(engine: Engine) -> None:
    name = f"public.{SYSTEM_LOGS.partition(MONTH)}"
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE system_logs DETACH PARTITION {name}"))

    with pytest.raises(DatabaseError, match=rf"{name} is there and no part") as caught:
        list(ensure_ahead(engine, tables=[SYSTEM_LOGS]))

    # The remedy is one.
    with engine.begin() as connection:
        connection.execute(text(caught.value.remedy.partition(";")[0]))
    assert len(list(ensure_ahead(engine, tables=[SYSTEM_LOGS]))) == 2


def test_ensure_ahead__until_a_month__goes_no_further(engine: Engine) -> None:
    made = list(ensure_ahead(engine, tables=[SYSTEM_LOGS, AUDIT_LOGS], until=MONTH.shift(13).start))

    assert [part.table for part in made].count("public.system_logs") == 12
    ends = [part.end for part in made if part.table == "audit.audit_logs"]
    assert max(ends) >= MONTH.shift(13).end
    assert all(part.start <= MONTH.shift(13).start for part in made)
