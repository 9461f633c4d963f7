"""Checkpoints of interrupted fits that nobody will go on with.

A fit keeps its checkpoint in ``fits/<pipeline>/<fingerprint>`` until it ends, so that it goes on after a
kill. Where the quarter has meanwhile been trained otherwise (from restated data, say), nobody asks for
that fingerprint again, and the folder would stay.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.db.engine import exclusive
from ts_forecast.db.retry import in_transaction
from ts_forecast.settings import Settings
from ts_forecast.tables.experiment import Experiment, Run
from ts_forecast.tracking.runs import lock_name

# A folder that no row knows: its rows were deleted, or another database is in use for a while.
_STRANGER_DAYS = 30
_MARK = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class LeftoverFit:
    """A folder that was removed.

    Attributes:
        name: ``<pipeline>/<first digits of the fingerprint>``.
        reason: why nobody will go on with it.
    """

    name: str
    size_bytes: int
    reason: str


def remove_leftover_fits(engine: Engine, settings: Settings) -> list[LeftoverFit]:
    """Remove the folders of fits that were interrupted and will not be gone on with.

    A fit that runs keeps its own, and so does one whose quarter waits for it.
    """
    removed = []
    for folder in sorted((settings.home / "fits").glob("*/*")):
        if not folder.is_dir() or not _MARK.fullmatch(folder.name):
            continue
        attempt = in_transaction(engine, partial(_attempt, folder=folder), read_only=True)
        if attempt is None:
            idle = time.time() - folder.stat().st_mtime
            if idle > _STRANGER_DAYS * 86_400:
                removed.append(_remove(folder, f"no run knows it for {_STRANGER_DAYS} days"))
            continue
        # Held as long as a process computes it; then there is nothing to look at.
        lock = lock_name(attempt.experiment_id, attempt.run_fingerprint)
        with exclusive(engine, *lock, wait=False) as is_ours:
            if not is_ours:
                continue
            reason = in_transaction(engine, partial(_reason, attempt=attempt), read_only=True)
            if reason is not None:
                removed.append(_remove(folder, reason))
    return removed


def _attempt(session: Session, folder: Path) -> Run | None:
    """The newest run that the folder is of."""
    return session.scalar(
        select(Run)
        .join(Experiment, Experiment.experiment_id == Run.experiment_id)
        .where(
            Experiment.experiment_name == folder.parent.name,
            Run.tags["kind"].astext == "train",
            Run.run_fingerprint.startswith(folder.name),
        )
        .order_by(Run.run_id.desc())
        .limit(1)
    )


def _reason(session: Session, attempt: Run) -> str | None:
    """Why nobody will go on with an attempt; None where somebody may."""
    trained = session.scalar(
        select(Run.run_id)
        .where(
            Run.experiment_id == attempt.experiment_id,
            Run.quarter_start == attempt.quarter_start,
            Run.tags["kind"].astext == "train",
            Run.tags["model"].astext == (attempt.tags or {}).get("model"),
            Run.status == "completed",
            Run.deleted_at.is_(None),
            Run.end_time >= attempt.start_time,
        )
        .order_by(Run.end_time.desc())
        .limit(1)
    )
    return None if trained is None else f"run {trained} has trained the quarter since"


def _remove(folder: Path, reason: str) -> LeftoverFit:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return LeftoverFit(f"{folder.parent.name}/{folder.name}", size, reason)
