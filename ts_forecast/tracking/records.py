"""Runs that have ended already, written by the hundred: trials of a search, results from elsewhere.

``runs.tracked_run`` surrounds a computation; here all of a run is known, so that one short transaction
writes its row, parameters and metrics, and a reader or a crash finds all of it or nothing. The states of
a run and what makes two the same are those of ``runs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ts_forecast.db.engine import lock_in_transaction
from ts_forecast.db.retry import in_transaction
from ts_forecast.db.text import unstorable, unstorable_json
from ts_forecast.errors import DatabaseError
from ts_forecast.tables.base import Base
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.runs import (
    RunKey,
    SourceType,
    find_completed,
    lock_name,
    retire_attempts,
    row_values,
)
from ts_forecast.tracking.tracker import Ending

# Of the table rather than of the class, and made once: a unit of work costs more than the row.
_RUNS = Base.metadata.tables[Run.__tablename__]
_INSERT = (
    insert(_RUNS)
    .on_conflict_do_nothing(
        index_elements=["experiment_id", "run_fingerprint"],
        index_where=sa.text("deleted_at IS NULL"),
    )
    .returning(_RUNS.c.run_id)
)


@dataclass(frozen=True)
class RunRecord:
    """All that is known of a run that has ended.

    Attributes:
        parameters: as ``measurements.log_parameters`` takes them.
        category: of the parameters.
        started: with a zone; the moment of writing where None.
        ended: likewise; not before ``started``.
        error: why it failed or was killed.
    """

    key: RunKey
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Sequence[MetricRow] = ()
    status: Ending = "completed"
    category: str | None = "model"
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """Where a record is.

    Attributes:
        reused: an identical run was completed already; nothing was written.
    """

    run_id: int
    reused: bool


def record_runs(
    engine: Engine, records: Iterable[RunRecord], *, source_type: SourceType = "scheduled"
) -> list[Recorded]:
    """Write runs, a transaction each, in the order given; commits.

    A transaction locks one fingerprint and writes its keys in sorted order: however many writers there
    are, and in whichever order they write the same runs, none waits for one that waits for it.

    Raises:
        DatabaseError, TrainingError, EvaluationError: as ``record_run``; the runs before stand.
    """
    recorded = []
    for record in records:
        write = partial(record_run, record=record, source_type=source_type)
        recorded.append(in_transaction(engine, write))
    return recorded


def record_run(
    session: Session, record: RunRecord, *, source_type: SourceType = "scheduled"
) -> Recorded:
    """Write one run, or find that an identical one is completed.

    Waits while another process computes or records the same. Call it once a transaction: two runs in
    one would lock two fingerprints. Of a failed or killed run, the next attempt takes the place.

    Raises:
        DatabaseError: a text cannot be stored, or the run ended before it started.
        TrainingError, EvaluationError: a parameter or a metric cannot be stored.
    """
    _refuse_unstorable(record)
    key = record.key
    lock_in_transaction(session, *lock_name(key.experiment_id, key.fingerprint))
    values = _values(record, source_type)
    run_id = session.execute(_INSERT, values).scalar_one_or_none()
    if run_id is None:
        standing = find_completed(session, key.experiment_id, key.fingerprint)
        if standing is not None:
            return Recorded(standing.run_id, reused=True)
        # An attempt that failed, or whose process is gone: its lock is ours.
        retire_attempts(session, key)
        run_id = session.execute(_INSERT, values).scalar_one()
    log_parameters(session, run_id, record.parameters, category=record.category)
    log_metrics(session, run_id, record.metrics)
    return Recorded(run_id, reused=False)


def _values(record: RunRecord, source_type: SourceType) -> dict[str, Any]:
    ended = record.ended or datetime.now(UTC)
    started = record.started or ended
    values = row_values(
        record.key, source_type=source_type, tags=record.tags, metadata=record.metadata
    )
    return {
        **{name.removesuffix("_"): value for name, value in values.items()},
        "status": record.status,
        "error_message": record.error,
        "start_time": started,
        "end_time": ended,
        "execution_duration_seconds": round((ended - started).total_seconds(), 3),
    }


def _refuse_unstorable(record: RunRecord) -> None:
    reasons = [
        "its name is empty" if not record.key.name else None,
        _prefixed("its name", unstorable(record.key.name)),
        _prefixed("its error", unstorable(record.error or "")),
        unstorable_json(record.tags, "tags"),
        unstorable_json(record.metadata, "metadata"),
    ]
    for name, moment in (("started", record.started), ("ended", record.ended)):
        if moment is not None and moment.tzinfo is None:
            reasons.append(f"{name} has no time zone")
    if not any(reasons) and record.started and record.ended and record.ended < record.started:
        reasons.append(f"it ended at {record.ended}, before it started")
    if reason := next(filter(None, reasons), None):
        raise DatabaseError(
            f"The run {ascii(record.key.name[:60])} cannot be recorded: {reason}.",
            remedy="Nothing of it was written; mend the record.",
        )


def _prefixed(what: str, reason: str | None) -> str | None:
    return f"{what} {reason}" if reason else None
