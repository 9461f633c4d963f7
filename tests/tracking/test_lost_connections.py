"""A run whose database connections are terminated around it is opened, completed and recorded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, text
from sqlalchemy.orm import Session

from ts_forecast.db.engine import transaction
from ts_forecast.db.retry import in_transaction
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.measurements import MetricRow, log_metrics
from ts_forecast.tracking.runs import RunKey, tracked_run


@contextmanager
def backend_ends_before(engine: Engine, start: str, times: int = 1) -> Iterator[list[str]]:
    """Terminate the backend that is to execute the next statements of a kind."""
    ended: list[str] = []

    def end(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(start) and len(ended) < times:
            ended.append(statement)
            driver = connection.connection.driver_connection
            assert driver is not None
            with engine.connect() as other:
                other.execute(
                    text("SELECT pg_terminate_backend(:pid, 5000)"),
                    {"pid": driver.info.backend_pid},
                )

    event.listen(engine, "before_cursor_execute", end)
    yield ended
    event.remove(engine, "before_cursor_execute", end)


def statuses(engine: Engine) -> list[tuple[str, bool]]:
    with transaction(engine) as session:
        rows = session.execute(select(Run.status, Run.deleted_at.is_(None)).order_by(Run.run_id))
        return [(row[0], row[1]) for row in rows]


@pytest.mark.parametrize("statement", ["INSERT INTO runs", "INSERT INTO metrics", "UPDATE runs"])
def test_tracked_run__connection_terminated__is_there_once_with_its_results(
    engine: Engine, key: RunKey, statement: str
) -> None:
    def store(session: Session) -> None:
        log_metrics(session, run.run_id, [MetricRow("loss", 1.0)])
        run.complete(session)

    with backend_ends_before(engine, statement) as ended, tracked_run(engine, key) as run:
        in_transaction(engine, store)

    assert len(ended) == 1
    assert statuses(engine) == [("completed", True)]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM metrics")) == 1


@pytest.mark.parametrize(("times", "expected"), [(1, "failed"), (99, "running")])
def test_tracked_run__body_fails_as_the_connection_does__its_error_is_raised(
    engine: Engine, key: RunKey, times: int, expected: str
) -> None:
    with ExitStack() as stack:
        with pytest.raises(ValueError, match="mine"), tracked_run(engine, key):
            ended = stack.enter_context(backend_ends_before(engine, "UPDATE runs", times))
            raise ValueError("mine")

    assert 1 <= len(ended) <= 3
    assert statuses(engine) == [(expected, True)]
