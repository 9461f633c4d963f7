"""Runs: one row a computation, which is not repeated if an identical one is on record.

The life of a run row and who may compute. Parameters and metrics are ``measurements``.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ts_forecast.db.engine import exclusive, transaction
from ts_forecast.quarters import Quarter
from ts_forecast.tables.experiment import Run

RunKind = Literal["train", "predict", "evaluate"]
_REASON_LENGTH = 1000


@dataclass(frozen=True)
class RunKey:
    """What a run computes; ``(experiment_id, fingerprint)`` identifies it."""

    experiment_id: int
    kind: RunKind
    name: str
    fingerprint: str
    quarter: Quarter
    parent_run_id: int | None = None


@dataclass
class OpenRun:
    """A run within ``tracked_run``.

    Attributes:
        reused: an identical run is on record; the body has nothing to compute.
    """

    run_id: int
    reused: bool
    fingerprint: str
    _begun: datetime
    _replaces: int | None = None
    _completed: bool = field(default=False, init=False)

    def complete(self, session: Session, metadata: Mapping[str, Any] | None = None) -> None:
        """Mark the run completed, within the transaction that writes its results."""
        now = datetime.now(UTC)
        if self._replaces is not None:
            _retire(session, self._replaces, now)
        run = session.get_one(Run, self.run_id)
        run.status = "completed"
        run.end_time = now
        run.execution_duration_seconds = round((now - self._begun).total_seconds(), 3)  # type: ignore[assignment]
        run.metadata_ = {**(run.metadata_ or {}), **(metadata or {})}
        if self._replaces is not None:
            session.flush()
            run.run_fingerprint = self.fingerprint
        self._completed = True


# A forced repetition may not hold the fingerprint while the run that it replaces still stands.
_AGAIN = "+"


def find_completed(session: Session, experiment_id: int, fingerprint: str) -> Run | None:
    """The completed run of that fingerprint, if it is on record."""
    return session.scalar(
        select(Run).where(
            Run.experiment_id == experiment_id,
            Run.run_fingerprint == fingerprint,
            Run.status == "completed",
            Run.deleted_at.is_(None),
        )
    )


@contextmanager
def tracked_run(
    engine: Engine,
    key: RunKey,
    *,
    force: bool = False,
    metadata: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Iterator[OpenRun]:
    """Compute once: yields a run to fill, or the identical one that is on record.

    One process computes a fingerprint at a time; others wait and then find it done. The body calls
    ``OpenRun.complete`` in the transaction that writes the results, so that both are there or neither.
    If the body raises, the row becomes ``failed`` with the reason (``killed`` for an interruption); if
    the process dies, the row stays ``running`` until the next attempt, which marks it ``killed``. Rows
    of earlier attempts are soft-deleted, never removed. With ``force`` the run on record stands until
    its repetition completes.
    """
    with exclusive(engine, "run", str(key.experiment_id), key.fingerprint):
        with transaction(engine) as session:
            opened = _open(session, key, force=force, metadata=metadata, tags=tags)
        if opened.reused:
            yield opened
            return
        try:
            yield opened
        except BaseException as error:
            status = "failed" if isinstance(error, Exception) else "killed"
            _fail(engine, opened, status, error)
            raise
        if not opened._completed:
            _fail(engine, opened, "failed", RuntimeError("the run was never completed"))


def _open(
    session: Session,
    key: RunKey,
    *,
    force: bool,
    metadata: Mapping[str, Any] | None,
    tags: Mapping[str, Any] | None,
) -> OpenRun:
    now = datetime.now(UTC)
    replaces = None
    held = [key.fingerprint, (_AGAIN + key.fingerprint)[:64]]
    standing = session.scalars(
        select(Run)
        .where(
            Run.experiment_id == key.experiment_id,
            Run.run_fingerprint.in_(held),
            Run.deleted_at.is_(None),
        )
        .with_for_update()
    ).all()
    for run in standing:
        if run.status == "completed":
            if not force:
                return OpenRun(run.run_id, True, key.fingerprint, now)
            replaces = run.run_id
            continue
        # We hold the fingerprint's lock: whoever was running it is dead.
        if run.status == "running":
            run.status = "killed"
            run.end_time = now
        run.deleted_at = now
        run.lifecycle_stage = "deleted"
    session.flush()
    row = Run(
        experiment_id=key.experiment_id,
        parent_run_id=key.parent_run_id,
        run_name=key.name,
        run_fingerprint=held[1] if replaces is not None else key.fingerprint,
        status="running",
        start_time=now,
        source_type="scheduled",
        source_name=f"ts_forecast.{key.kind}",
        quarter_start=key.quarter.start.date(),
        user_id=os.environ.get("USER") or None,
        tags={"kind": key.kind, **(tags or {})},
        metadata_={"host": platform.node(), "pid": os.getpid(), **(metadata or {})},
        **_source_control(),
    )
    session.add(row)
    session.flush()
    return OpenRun(row.run_id, False, key.fingerprint, now, replaces)


def _retire(session: Session, run_id: int, now: datetime) -> None:
    session.execute(
        update(Run).where(Run.run_id == run_id).values(deleted_at=now, lifecycle_stage="deleted")
    )


def _fail(engine: Engine, opened: OpenRun, status: str, error: BaseException) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_LENGTH]
    try:
        with transaction(engine) as session:
            run = session.get_one(Run, opened.run_id)
            run.status = status
            run.end_time = datetime.now(UTC)
            run.metadata_ = {**(run.metadata_ or {}), "error": reason}
    except SQLAlchemyError:
        # The database is gone: the next attempt marks the row killed. The body's error is what counts.
        return


@cache
def _source_control() -> dict[str, str]:
    """Commit and branch of the code, where it runs from a git checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {}
    found: dict[str, str] = {}
    for column, argument in (("git_commit_hash", "HEAD"), ("git_branch", "--abbrev-ref HEAD")):
        command = ["git", "-C", str(root), "rev-parse", *argument.split()]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            return {}
        found[column] = answer.stdout.strip()
    return found
