"""Engines, the one commit, and advisory locks.

``transaction`` is the only place that commits; domain functions take the session that it yields.
Which database is opened is decided in ``database``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import URL, Engine, make_url, text
from sqlalchemy.orm import Session

from ts_forecast.settings import Settings

_RECYCLE_SECONDS = 3600
_CONNECT_SECONDS = 10
_UTC = "-c timezone=UTC"
_USER = "app.current_user"
_READ_ONLY = "default_transaction_read_only"

Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


def create_engine(
    url: str,
    settings: Settings | None = None,
    *,
    application_name: str = "ts-forecast",
    read_only: bool = False,
) -> Engine:
    """An engine on psycopg 3 whose sessions speak UTC and say who acts (``app.current_user``).

    Its ``url`` holds all that a connection needs, for clients that connect by themselves (``arrow``).

    Args:
        url: its own ``options`` and ``connect_timeout`` stand.
        settings: pool sizes and the user; the defaults of the class where None.
        read_only: its transactions cannot write, whatever their isolation.
    """
    pool = settings or Settings.model_construct()
    return sa.create_engine(
        _complete(make_url(url), application_name, pool.user, read_only),
        pool_size=pool.database_pool_size,
        max_overflow=pool.database_max_overflow,
        pool_timeout=pool.database_pool_timeout,
        pool_recycle=_RECYCLE_SECONDS,
        pool_pre_ping=True,
        echo=pool.database_echo,
        execution_options={_READ_ONLY: read_only},
    )


def _complete(url: URL, application_name: str, user: str, read_only: bool) -> URL:
    given = url.normalized_query
    options = [*given.get("options", ())]
    ours = [_UTC]
    if not any(f"{_USER}=" in option for option in options):
        # The server splits options at white space that no backslash stands before.
        escaped = re.sub(r"([\s\\])", r"\\\1", user)
        ours.append(f"-c {_USER}={escaped}")
    if read_only:
        ours.append(f"-c {_READ_ONLY}=on")
    options += [option for option in ours if not any(option in other for other in options)]
    return url.update_query_dict(
        {
            "application_name": application_name,
            "connect_timeout": given.get("connect_timeout", [str(_CONNECT_SECONDS)])[0],
            "options": " ".join(options),
        }
    )


@contextmanager
def transaction(
    engine: Engine,
    *,
    user: str | None = None,
    isolation: Isolation | None = None,
    read_only: bool = False,
) -> Iterator[Session]:
    """One unit of work: committed at the end of the block, rolled back on any error.

    A unit that only touches the database is better given to ``db.retry.in_transaction``, which repeats
    it when the connection is lost.

    Args:
        user: who acts, where a service acts for several people; costs a round trip. Otherwise it is
            the user of the engine's settings, whom every session states from its start.
        isolation: READ COMMITTED by default: each statement sees what was committed before it.
            REPEATABLE READ: all statements see the same; SERIALIZABLE: as if nobody else were there.
            Both may fail with a serialization failure, which is for the caller to repeat.
        read_only: the server refuses to write.
    """
    with Session(engine, expire_on_commit=False) as session, session.begin():
        # psycopg sends both with its BEGIN. A session that is read-only from its start is left alone:
        # SQLAlchemy would make it a writing one when it takes its option back.
        options: dict[str, Any] = {"isolation_level": isolation} if isolation else {}
        if read_only and not is_read_only(engine):
            options["postgresql_readonly"] = True
        if options:
            session.connection(execution_options=options)
        if user is not None:
            session.execute(
                text("SELECT set_config(:name, :user, true)"), {"name": _USER, "user": user}
            )
        yield session


def is_read_only(engine: Engine) -> bool:
    """Whether the engine was made with ``read_only``."""
    return bool(engine.get_execution_options().get(_READ_ONLY))


def lock_key(*parts: str) -> int:
    """A signed 64-bit key of an advisory lock, the same in every process."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def lock_in_transaction(session: Session, *parts: str) -> None:
    """Wait for the named advisory lock; the end of the transaction releases it."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key(*parts)})


@contextmanager
def exclusive(engine: Engine, *parts: str, wait: bool = True) -> Iterator[bool]:
    """Hold the named advisory lock on a connection of its own, across transactions.

    The server releases it when the connection ends, so that a killed process never keeps it. The
    connection is idle outside of a transaction: it blocks no vacuum.

    Yields:
        Whether the lock is held; always True if ``wait``.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"key": lock_key(*parts)}
        if wait:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
            is_held = True
        else:
            is_held = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key))
        try:
            yield is_held
        finally:
            # A connection that was lost has lost its locks too: drop it from the pool.
            if is_held and not connection.invalidated:
                try:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                except sa.exc.DBAPIError:
                    connection.invalidate()
