"""Runs: computing something at most once, and recording how it went.

``tracked_run`` surrounds every computation. Its states, for one (experiment, fingerprint):

- nobody computes it twice at once: an advisory lock of the fingerprint is held all the while, and
  the server releases it when the process dies
- so whoever holds the lock knows that a row still ``running`` is of a process that is gone; such a
  row, and a failed one, is soft-deleted by the attempt that takes its place
- a forced repetition stays soft-deleted itself until it completes, and then changes places with
  the completed run in one transaction: readers (``deleted_at IS NULL``) always see one result, the
  old or the new, and nothing that refers to the old run loses its reference

Parameters and metrics of a run are ``measurements``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, Numeric, cast, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, aliased

from ts_forecast.db.engine import exclusive
from ts_forecast.db.retry import Patience, in_transaction
from ts_forecast.db.text import one_line
from ts_forecast.errors import CommitUnknownError, DatabaseError
from ts_forecast.logs.context import bound
from ts_forecast.quarters import Quarter
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.environment import describe_environment, source_revision
from ts_forecast.tracking.tracker import Ending, NullTracker, Tracker

RunKind = Literal["train", "predict", "evaluate", "choose", "trial"]
SourceType = Literal["notebook", "script", "cli", "api", "scheduled"]
_MAX_NAME_LENGTH = 255
# What ended a run must not wait long to be heard because the database is down.
_SHORT = Patience(attempts=3, seconds=2.0, first_wait=0.2)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunKey:
    """Which computation this is.

    Attributes:
        experiment_id: the pipeline's.
        kind: what is computed; stored as the tag ``kind``.
        name: for people; cut at 255 characters.
        fingerprint: what makes two computations of an experiment the same.
        quarter: the partition that it is for.
        parent_run_id: the run whose result this one builds on.
    """

    experiment_id: int
    kind: RunKind
    name: str
    fingerprint: str
    quarter: Quarter
    parent_run_id: int | None = None


@dataclass
class OpenRun:
    """A run that is being computed, or the completed one that makes computing needless.

    Attributes:
        reused: an identical run is completed: compute nothing, ``run_id`` is that run's.
    """

    run_id: int
    run_uuid: UUID
    reused: bool
    key: RunKey
    tracker: Tracker = field(default_factory=NullTracker, repr=False)

    def complete(self, session: Session, metadata: Mapping[str, Any] | None = None) -> None:
        """Complete the run in the transaction that stores its results.

        Call it last in that transaction: it locks the row. The completed run that this one repeats
        is soft-deleted here.

        Args:
            metadata: added to the run's metadata.

        Raises:
            DatabaseError: the run is reused, or another process took it over (the connection that
                held its lock was lost). Nothing of the transaction may be kept.
        """
        if self.reused:
            raise DatabaseError(
                f"Run {self.run_id} is completed already and was reused.",
                remedy="Do not compute or complete a reused run.",
            )
        # This row first: its lock stops a successor that calls it killed.
        is_ours = session.scalar(
            select(Run.status == "running").where(Run.run_id == self.run_id).with_for_update()
        )
        if not is_ours:
            raise DatabaseError(
                f"Run {self.run_id} ({self.key.name}) is no longer this process's to complete.",
                remedy="Its lock was lost with a database connection; run it again.",
            )
        # The unique index on live fingerprints allows one: the old one goes first.
        session.execute(
            update(Run)
            .where(*_same_computation(self.key), _IS_LIVE, Run.run_id != self.run_id)
            .values(**_soft_deleted())
        )
        session.execute(
            update(Run)
            .where(Run.run_id == self.run_id)
            .values(
                status="completed",
                deleted_at=None,
                lifecycle_stage="active",
                metadata_=Run.metadata_.concat(dict(metadata or {})),
                **ended(),
            )
        )


_IS_LIVE: ColumnElement[bool] = Run.deleted_at.is_(None)


def find_completed(session: Session, experiment_id: int, fingerprint: str) -> Run | None:
    """The completed run of a fingerprint that stands; None if there is none."""
    return session.scalar(
        select(Run).where(
            Run.experiment_id == experiment_id,
            Run.run_fingerprint == fingerprint,
            Run.status == "completed",
            _IS_LIVE,
        )
    )


def current_run(
    session: Session, experiment_id: int, kind: RunKind, quarter: Quarter
) -> Run | None:
    """The latest completed run of a kind for a quarter that stands; None if there is none."""
    return session.scalars(
        select(Run)
        .where(*_of_quarter(experiment_id, kind, quarter))
        .order_by(Run.end_time.desc(), Run.run_id.desc())
        .limit(1)
    ).first()


def supersede(
    session: Session,
    experiment_id: int,
    kind: RunKind,
    quarter: Quarter,
    *,
    keep: int | None,
    model: str | None = None,
) -> int:
    """Soft-delete the completed runs of a kind for a quarter, except one.

    For kinds of which a quarter has one standing result. What the older runs wrote stays, and what
    refers to them.

    Args:
        model: of this model alone, by the runs' tag.

    Returns:
        How many were soft-deleted.
    """
    statement = update(Run).where(*_of_quarter(experiment_id, kind, quarter))
    if keep is not None:
        statement = statement.where(Run.run_id != keep)
    if model is not None:
        statement = statement.where(Run.tags["model"].astext == model)
    return len(session.execute(statement.values(**_soft_deleted()).returning(Run.run_id)).all())


@contextmanager
def tracked_run(
    engine: Engine,
    key: RunKey,
    *,
    source_type: SourceType = "scheduled",
    user_id: str | None = None,
    force: bool = False,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tracker: Tracker | None = None,
) -> Iterator[OpenRun]:
    """Surround a computation; spans several transactions, so it takes the engine.

    Waits while another process computes the same fingerprint, and then finds it done. The body
    looks at ``reused``; otherwise it computes and calls ``complete`` in the transaction that stores
    its results, so that results and status commit together.

    Args:
        force: compute although an identical run is completed.
        tags: further tags; ``kind`` and ``quarter`` are set here.

    Raises:
        DatabaseError: the body ended without ``complete``; the run is ``failed``.
        BaseException: whatever the body raises, after the run has become ``failed`` (an Exception)
            or ``killed`` (KeyboardInterrupt, SystemExit and the like).
    """

    def open_it(session: Session) -> OpenRun:
        return open_run(
            session,
            key,
            source_type=source_type,
            user_id=user_id,
            force=force,
            tags=tags,
            metadata=metadata,
        )

    with exclusive(engine, *lock_name(key.experiment_id, key.fingerprint)):
        # A restart of the server takes the lock with it; if another process got it meanwhile, it is
        # told so by its own complete().
        run = in_transaction(engine, open_it)
        run.tracker = tracker or run.tracker
        if not run.reused:
            with bound(run_id=run.run_id, run=key.name), _recorded(engine, run):
                yield run
            return
    # Outside of the lock: whoever only reads a result keeps nobody waiting.
    yield run


def lock_name(experiment_id: int, fingerprint: str) -> tuple[str, ...]:
    """Parts of the advisory lock that who computes or records this holds."""
    return ("run", str(experiment_id), fingerprint)


def open_run(
    session: Session,
    key: RunKey,
    *,
    source_type: SourceType,
    user_id: str | None = None,
    force: bool = False,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> OpenRun:
    """The completed run of the key if it stands, else a row that is ``running``.

    The caller holds the lock of ``lock_name``; what earlier attempts left is soft-deleted.

    Args:
        force: a new row although a completed run stands; it stays aside until it completes.
    """
    standing = find_completed(session, key.experiment_id, key.fingerprint)
    if standing is not None and not force:
        return OpenRun(standing.run_id, standing.run_uuid, reused=True, key=key)
    retire_attempts(session, key)
    row = Run(
        **row_values(key, source_type=source_type, user_id=user_id, tags=tags, metadata=metadata),
        status="running",
        **(_soft_deleted() if standing is not None else {}),
    )
    session.add(row)
    session.flush()
    return OpenRun(row.run_id, row.run_uuid, reused=False, key=key)


def row_values(
    key: RunKey,
    *,
    source_type: SourceType,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Columns of a run's row, all but how it goes."""
    return {
        "experiment_id": key.experiment_id,
        "parent_run_id": key.parent_run_id,
        "run_name": key.name[:_MAX_NAME_LENGTH],
        "run_fingerprint": key.fingerprint,
        "source_type": source_type,
        "source_name": f"ts_forecast.{key.kind}",
        "git_commit_hash": source_revision().commit,
        "git_branch": source_revision().branch,
        "user_id": user_id,
        "quarter_start": key.quarter.start.date(),
        "tags": {**(tags or {}), "kind": key.kind, "quarter": key.quarter.label},
        "metadata_": {**describe_environment(), **(metadata or {})},
    }


@contextmanager
def _recorded(engine: Engine, run: OpenRun) -> Iterator[None]:
    """Record how the body ends, and tell the tracker."""
    run.tracker.start(run.run_uuid, run.key.name, {"kind": run.key.kind})
    ending: Ending = "failed"
    try:
        yield
        reason = "the body ended without complete()"
        is_open = in_transaction(
            engine, lambda session: end_run(session, run.run_id, "failed", reason)
        )
        if is_open:
            raise DatabaseError(
                f"Run {run.run_id} ({run.key.name}) ended without complete().",
                remedy="Call complete(session) in the transaction that stores the results.",
            )
        ending = "completed"
    except Exception as error:
        _record_quietly(engine, run, "failed", one_line(error))
        raise
    except BaseException as error:
        ending = "killed"
        _record_quietly(engine, run, "killed", one_line(error))
        raise
    finally:
        run.tracker.finish(run.run_uuid, ending)


def _record_quietly(engine: Engine, run: OpenRun, ending: Ending, reason: str) -> None:
    """Record how a run ended; a database that is down must not hide what ended it."""
    try:
        in_transaction(
            engine, lambda session: end_run(session, run.run_id, ending, reason), patience=_SHORT
        )
    except (SQLAlchemyError, CommitUnknownError) as problem:
        # The row stays `running`; the next attempt finds it and calls it killed.
        _log.warning("Run %d could not be recorded as %s: %s", run.run_id, ending, problem)


def end_run(session: Session, run_id: int, ending: Ending, reason: str) -> bool:
    """End a running run; False if it was not running."""
    # If a commit succeeded and only its answer was lost, the run is completed and stays so.
    row = session.execute(
        update(Run)
        .where(Run.run_id == run_id, Run.status == "running")
        .values(status=ending, error_message=reason, **ended())
        .returning(Run.run_id)
    )
    return row.one_or_none() is not None


def retire_attempts(session: Session, key: RunKey) -> None:
    """Soft-delete what earlier attempts left; the caller holds the lock of ``lock_name``."""
    reason = "its process ended without a word; found by the next attempt"
    session.execute(
        update(Run)
        .where(*_same_computation(key), Run.status == "running")
        .values(status="killed", error_message=reason, **ended())
    )
    # Trials die with their search, and nobody else asks for them again.
    attempt = aliased(Run)
    dead = select(attempt.run_id).where(
        attempt.experiment_id == key.experiment_id,
        attempt.run_fingerprint == key.fingerprint,
        attempt.status.in_(["killed", "failed"]),
    )
    session.execute(
        update(Run)
        .where(Run.parent_run_id.in_(dead), Run.status == "running")
        .values(status="killed", error_message=reason, **ended())
    )
    session.execute(
        update(Run)
        .where(*_same_computation(key), Run.status != "completed", _IS_LIVE)
        .values(**_soft_deleted())
    )


def _same_computation(key: RunKey) -> tuple[ColumnElement[bool], ...]:
    return (Run.experiment_id == key.experiment_id, Run.run_fingerprint == key.fingerprint)


def _of_quarter(
    experiment_id: int, kind: RunKind, quarter: Quarter
) -> tuple[ColumnElement[bool], ...]:
    return (
        Run.experiment_id == experiment_id,
        Run.quarter_start == quarter.start.date(),
        Run.status == "completed",
        Run.tags["kind"].astext == kind,
        _IS_LIVE,
    )


def _soft_deleted() -> dict[str, Any]:
    return {"deleted_at": func.clock_timestamp(), "lifecycle_stage": "deleted"}


def ended() -> dict[str, Any]:
    """Columns of a run that ends now. The server's clock at both ends, not a transaction's start."""
    seconds = func.extract("epoch", func.clock_timestamp() - Run.start_time)
    return {
        "end_time": func.clock_timestamp(),
        "execution_duration_seconds": func.greatest(0, cast(seconds, Numeric(12, 3))),
    }
