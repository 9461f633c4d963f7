"""Runs that nobody computes any more are found by their lock, and no others."""

from __future__ import annotations

from sqlalchemy import Engine, text

from tests.tracking.test_runs import compute, states
from ts_forecast.db.engine import transaction
from ts_forecast.tracking.lost_runs import end_lost_runs
from ts_forecast.tracking.runs import RunKey, open_run, tracked_run


def test_end_lost_runs__process_gone__is_killed(engine: Engine, key: RunKey) -> None:
    with transaction(engine) as session:
        # What a killed process leaves: a row that is running, and no lock.
        run = open_run(session, key, source_type="scheduled")

    with transaction(engine) as session:
        assert end_lost_runs(session) == [run.run_id]

    assert states(engine) == [("killed", "active", True)]
    with engine.connect() as connection:
        ended = connection.execute(text("SELECT end_time, error_message FROM runs")).one()
    assert ended[0] is not None and "was killed" in ended[1]
    # The next attempt takes its place as that of any killed run.
    compute(engine, key)
    assert states(engine) == [("killed", "deleted", False), ("completed", "active", True)]


def test_end_lost_runs__process_alive__is_left_alone(engine: Engine, key: RunKey) -> None:
    with tracked_run(engine, key) as run:
        with transaction(engine) as session:
            assert end_lost_runs(session) == []
        with transaction(engine) as session:
            run.complete(session)

    with transaction(engine) as session:
        assert end_lost_runs(session) == []
    assert states(engine) == [("completed", "active", True)]
