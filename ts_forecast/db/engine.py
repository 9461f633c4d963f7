"""Engines, the one commit, and advisory locks.

``transaction`` is the only place that commits; domain functions take the session that it yields.
Which database is opened is decided in ``database``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import URL, Engine, make_url, text
from sqlalchemy.orm import Session

from ts_forecast.settings import Settings

_RECYCLE_SECONDS = 3600
_CONNECT_SECONDS = 10
_UTC = "-c timezone=UTC"


def create_engine(
    url: str, settings: Settings | None = None, *, application_name: str = "ts-forecast"
) -> Engine:
    """An engine on psycopg 3 whose sessions speak UTC.

    Its ``url`` holds all that a connection needs, for clients that connect by themselves (``arrow``).

    Args:
        url: its own ``options`` and ``connect_timeout`` stand.
        settings: pool sizes; the defaults of the class where None.
    """
    pool = settings or Settings.model_construct()
    return sa.create_engine(
        _complete(make_url(url), application_name),
        pool_size=pool.database_pool_size,
        max_overflow=pool.database_max_overflow,
        pool_timeout=pool.database_pool_timeout,
        pool_recycle=_RECYCLE_SECONDS,
        pool_pre_ping=True,
        echo=pool.database_echo,
    )


def _complete(url: URL, application_name: str) -> URL:
    given = url.normalized_query
    options = [*given.get("options", ())]
    if not any(_UTC in option for option in options):
        options.append(_UTC)
    return url.update_query_dict(
        {
            "application_name": application_name,
            "connect_timeout": given.get("connect_timeout", [str(_CONNECT_SECONDS)])[0],
            "options": " ".join(options),
        }
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One unit of work: committed at the end of the block, rolled back on any error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


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
