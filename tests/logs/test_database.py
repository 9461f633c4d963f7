"""Warnings become rows of ``system_logs`` without their caller waiting, whatever the database does."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.logs.context import bound
from ts_forecast.logs.database import DatabaseHandler
from ts_forecast.logs.masking import Masker
from ts_forecast.logs.records import Fields
from ts_forecast.logs.rows import write_rows

REPOSITORY = Path(__file__).parents[2]
MASK = Masker(["hunter2"])


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@contextmanager
def logging_to(
    open_engine: Callable[[], Engine | None],
    write: Callable[[Engine, list[Fields]], int] | None = None,
    **options: int,
) -> Iterator[tuple[logging.Logger, DatabaseHandler]]:
    handler = DatabaseHandler(
        open_engine,
        write or (lambda engine, batch: write_rows(engine, batch, "me")),
        MASK,
        **options,
    )
    logger = logging.getLogger("shop.window")
    logger.addHandler(handler)
    # pytest would keep the records, and xdist cannot send a lone surrogate from worker to worker.
    logger.propagate = False
    try:
        yield logger, handler
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()


def rows(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM system_logs ORDER BY log_id")).mappings()
        return [dict(row) for row in found]


def settle(engine: Engine, count: int) -> None:
    """Wait for a number of rows, however busy the host is."""
    deadline = time.monotonic() + 30
    while len(messages(engine)) < count and time.monotonic() < deadline:
        time.sleep(0.1)


def messages(engine: Engine) -> list[str]:
    return [row["log_message"] for row in rows(engine)]


def test_handler__warnings_and_above__are_rows_with_all_that_is_known(
    engine: Engine, url: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))
        run_id = connection.scalar(
            text(
                "INSERT INTO runs (experiment_id, run_name, run_fingerprint, status, source_type) "
                "SELECT experiment_id, 'r', 'f', 'running', 'cli' FROM experiments RETURNING run_id"
            )
        )
    before = time.time()
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        logger.info("not this")
        with bound(run_id=run_id, quarter="2025-Q1"):
            logger.warning("%s of hunter2", "rows", extra={"file": "a\x00.csv"})
        try:
            raise KeyError("\ud800")
        except KeyError:
            logger.exception("lost \x00 and \ud800")
        handler.flush()

        first, second = rows(engine)

    assert (first["log_level"], first["log_message"]) == ("WARNING", "rows of ***")
    assert (first["log_source"], first["run_id"], first["user_id"]) == ("shop.window", run_id, "me")
    assert first["extra_data"] == {
        "run_id": run_id,
        "quarter": "2025-Q1",
        "file": "a\\x00.csv",
        "pid": os.getpid(),
    }
    assert before - 1 < first["created_at"].timestamp() < time.time() + 1
    assert first["stack_trace"] is None
    assert (second["log_level"], second["exception_type"]) == ("ERROR", "KeyError")
    assert second["log_message"] == "lost \\x00 and \\ud800"
    assert "Traceback" in second["stack_trace"]


def test_handler__run_that_nobody_knows__keeps_the_record(engine: Engine, url: str) -> None:
    with logging_to(lambda: create_engine(url)) as (logger, handler), bound(run_id=404):
        logger.warning("early")
        handler.flush()

        assert [(r["run_id"], r["extra_data"]["run_id"]) for r in rows(engine)] == [(None, 404)]


def test_handler__many_at_once__are_all_there_in_order(engine: Engine, url: str) -> None:
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        for number in range(2_345):
            logger.warning("%d", number)
        settle(engine, 2_345)

        assert messages(engine) == [str(number) for number in range(2_345)]


def test_handler__database_away__callers_do_not_wait_and_nothing_is_lost(
    engine: Engine, url: str
) -> None:
    is_up = threading.Event()

    def open_engine() -> Engine:
        if not is_up.is_set():
            raise OSError("connection refused")
        return create_engine(url)

    with logging_to(open_engine) as (logger, handler):
        begun = time.monotonic()
        for number in range(100):
            logger.warning("%d", number)
        assert time.monotonic() - begun < 0.5
        begun = time.monotonic()
        handler.flush()
        assert 0.9 < time.monotonic() - begun < 1.5
        is_up.set()
        settle(engine, 100)

        assert messages(engine) == [str(number) for number in range(100)]


def test_handler__backend_terminated_between_batches__nothing_is_lost(
    engine: Engine, url: str
) -> None:
    with logging_to(lambda: create_engine(url, application_name="log writer")) as (logger, handler):
        logger.warning("before")
        handler.flush()
        with engine.begin() as connection:
            ended = connection.scalars(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = 'log writer'"
                )
            ).all()
        logger.warning("after")
        handler.flush()

        assert ended == [True]
        assert messages(engine) == ["before", "after"]


def test_handler__slow_database_and_full_queue__drops_counts_and_says_so(
    engine: Engine, url: str
) -> None:
    may_write = threading.Event()

    def slowly(opened: Engine, batch: list[Fields]) -> int:
        may_write.wait(20)
        return write_rows(opened, batch, "me")

    with logging_to(lambda: create_engine(url), slowly, capacity=10) as (logger, handler):
        logger.warning("first")
        while not handler._queue.empty():
            time.sleep(0.01)
        time.sleep(0.3)
        begun = time.monotonic()
        for number in range(100):
            logger.warning("%d", number)
        assert time.monotonic() - begun < 0.5
        may_write.set()
        settle(engine, 12)

        found = messages(engine)

    assert found[0] == "first"
    assert sorted(found[1:]) == sorted(
        [
            *map(str, range(10)),
            "90 log records are not in system_logs: the queue was full, or they were refused",
        ]
    )


def test_handler__one_record_is_refused__the_others_are_written(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE system_logs ADD CONSTRAINT picky CHECK (log_message <> 'bad')")
        )
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        for message in ("good", "bad", "better"):
            logger.warning(message)
        handler.flush()

        found = messages(engine)

    assert found[:2] == ["good", "better"]
    assert found[2].startswith("1 log records are not in system_logs")


def test_handler__schema_is_missing__waits_without_a_word_to_the_caller(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ts_forecast.logs")
    with logging_to(lambda: create_engine(empty_database_url)) as (logger, handler):
        logger.warning("early")
        handler.flush()

    said = [r.message for r in caplog.records if r.name == "ts_forecast.logs.database"]
    assert len(said) == 1
    assert "system_logs cannot be written, records wait" in said[0]


def test_handler__what_sqlalchemy_says_while_writing__is_not_written_again(
    engine: Engine, url: str
) -> None:
    root = logging.getLogger()
    calls: list[int] = []

    def write(opened: Engine, batch: list[Fields]) -> int:
        calls.append(len(batch))
        logging.getLogger("sqlalchemy.engine").warning("SELECT 1")
        logging.getLogger("shop.window").error("from the writer's own thread")
        return write_rows(opened, batch, "me")

    with logging_to(lambda: create_engine(url), write) as (logger, handler):
        root.addHandler(handler)
        try:
            logger.propagate = False
            logger.warning("once")
            handler.flush()
            time.sleep(0.5)
            handler.flush()
        finally:
            logger.propagate = True
            root.removeHandler(handler)

        assert (calls, messages(engine)) == ([1], ["once"])


def test_handler__after_a_fork__child_writes_its_own_and_the_parent_its(
    engine: Engine, url: str
) -> None:
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        logger.warning("parent, before")
        handler.flush()
        logger.warning("parent, waiting while it forks")
        pid = os.fork()
        if pid == 0:
            try:
                logger.warning("child")
                handler.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        logger.warning("parent, after")
        handler.flush()

        found = rows(engine)

    assert status == 0
    assert sorted(row["log_message"] for row in found) == [
        "child",
        "parent, after",
        "parent, before",
        "parent, waiting while it forks",
    ]
    assert {row["extra_data"]["pid"] for row in found if row["log_message"] == "child"} == {pid}


def test_handler__closed_and_used_again__starts_again(engine: Engine, url: str) -> None:
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        logger.warning("one")
        handler.close()
        assert [t.name for t in threading.enumerate() if t.name == "system_logs"] == []
        logger.warning("two")
        handler.close()

        assert messages(engine) == ["one", "two"]


def test_handler__caller_in_a_transaction_that_fails__keeps_the_record(
    engine: Engine, url: str
) -> None:
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        with pytest.raises(RuntimeError), transaction(engine) as session:
            session.execute(text("INSERT INTO experiments (experiment_name) VALUES ('a')"))
            logger.warning("said in vain?")
            raise RuntimeError
        handler.flush()

        assert messages(engine) == ["said in vain?"]


ENDING = """
import logging, os, sys
from ts_forecast.logs.setup import install
from ts_forecast.settings import load_settings
install(load_settings())
import sqlalchemy, ts_forecast.tables, ts_forecast.db.engine, psycopg
logging.getLogger("ts_forecast.end").warning("the last words")
ENDING
"""


@pytest.mark.parametrize(("ending", "code"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)])
def test_handler__interpreter_ends__writes_what_waits(
    engine: Engine, url: str, tmp_path: Path, ending: str, code: int
) -> None:
    answer = run_to_its_end(url, tmp_path, ending)

    assert answer.returncode == code
    assert messages(engine) == ["the last words"]


def test_handler__interpreter_ends_without_a_database__takes_a_second_at_most(
    tmp_path: Path,
) -> None:
    # Takes connections and never answers: connecting would wait for ten seconds.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://nobody@127.0.0.1:{mute.getsockname()[1]}/none"
        begun = time.monotonic()
        at_once = run_to_its_end(url, tmp_path, "os._exit(0)")
        between = time.monotonic()
        orderly = run_to_its_end(url, tmp_path, "")
        ended = time.monotonic()

    assert (at_once.returncode, orderly.returncode) == (0, 0)
    # Two seconds for what else differs on a busy host.
    assert (ended - between) - (between - begun) < 1 + 2
    assert (tmp_path / "ts-forecast.log").read_text().count("the last words") == 2


def run_to_its_end(url: str, log_dir: Path, ending: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ENDING.replace("ENDING", ending)],
        env=os.environ | {"DATABASE_URL": url, "LOG_DIR": str(log_dir), "LOG_TO_DATABASE": "true"},
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )


def test_handler__signal_handler_logs_in_the_middle_of_a_record__does_not_deadlock(
    engine: Engine, url: str
) -> None:
    with logging_to(lambda: create_engine(url)) as (logger, handler):
        previous = signal.signal(signal.SIGALRM, lambda *_: logger.warning("from the signal"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for number in range(2_000):
                logger.warning("%d", number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        handler.flush()
        settle(engine, 2_001)
        handler.close()

        found = messages(engine)

    assert [m for m in found if m.isdigit()] == [str(number) for number in range(2_000)]
    assert "from the signal" in found
