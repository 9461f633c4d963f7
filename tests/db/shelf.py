"""A table for tests of units of work, and what is done with it."""

from __future__ import annotations

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from ts_forecast.db.retry import Patience

HASTY = Patience(attempts=4, seconds=20, first_wait=0.05, longest_wait=0.2)


def put(session: Session, n: int) -> None:
    session.execute(text("INSERT INTO shelf (n) VALUES (:n)"), {"n": n})


def rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT n FROM shelf ORDER BY n")))


def kill(engine: Engine, pid: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
