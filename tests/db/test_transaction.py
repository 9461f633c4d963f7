"""Transactions of the whole program: who acts in them, and read-only ones."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.db.shelf import put, rows
from ts_forecast.db.arrow import read_arrow
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.db.retry import in_transaction
from ts_forecast.settings import Settings


def test_transaction__user__is_the_settings_and_the_callers_for_one_transaction(
    database_url: str,
) -> None:
    name = r"O'Brien \ 山田"
    pool = create_engine(database_url, Settings(_env_file=None, user=name))
    query = text("SELECT current_setting('app.current_user')")
    try:
        with transaction(pool) as session:
            assert session.scalar(query) == name
        with transaction(pool, user="somebody else") as session:
            assert session.scalar(query) == "somebody else"
        assert in_transaction(pool, lambda session: session.scalar(query), user="third") == "third"
        with pool.connect() as connection:
            assert connection.scalar(query) == name
        # Bulk transfer has connections of its own.
        read = read_arrow(pool, "SELECT current_setting('app.current_user') AS name")
        assert read.to_pylist() == [{"name": name}]
    finally:
        pool.dispose()


def test_transaction__read_only__refuses_to_write_and_leaves_no_trace(shelf: Engine) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        in_transaction(shelf, lambda session: put(session, 1), read_only=True)

    in_transaction(shelf, lambda session: put(session, 2))
    assert rows(shelf) == [2]


def test_create_engine__read_only__never_writes_whatever_was_asked(
    shelf: Engine, database_url: str
) -> None:
    reading = create_engine(database_url, read_only=True)
    try:
        for read_only in (False, True, False):
            with pytest.raises(DBAPIError, match="read-only"):
                in_transaction(reading, lambda session: put(session, 1), read_only=read_only)
        assert (
            in_transaction(
                reading, lambda session: session.scalar(text("SELECT count(*) FROM shelf"))
            )
            == 0
        )
    finally:
        reading.dispose()
