"""Runs whose process is gone without having said so: found by their lock, which nobody holds.

The next attempt at the same computation would call them killed (``runs``); an executor that knows of
steps that were lost calls this instead of leaving that to a next attempt that may never come.
"""

from __future__ import annotations

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from ts_forecast.db.engine import lock_key
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.runs import ended, lock_name

_REASON = "its process was killed"


def end_lost_runs(session: Session) -> list[int]:
    """Call runs ``killed`` that are ``running`` while no process holds their lock.

    The locks are kept until the caller's transaction ends: nobody starts the same computation between.

    Returns:
        Their ids.
    """
    lost = []
    running = select(Run.run_id, Run.experiment_id, Run.run_fingerprint)
    for run_id, experiment, mark in session.execute(running.where(Run.status == "running")).all():
        key = {"key": lock_key(*lock_name(experiment, mark))}
        if session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), key):
            lost.append(run_id)
    if not lost:
        return []
    # Once more `running`: one may have completed, and let go of its lock, between.
    killed = session.execute(
        update(Run)
        .where(Run.run_id.in_(lost), Run.status == "running")
        .values(status="killed", error_message=_REASON, **ended())
        .returning(Run.run_id)
    )
    return sorted(killed.scalars())
