"""Publishing the forecasts of a pipeline and a quarter, all at once or not at all.

A slice is built offline in a table of its own and swapped in within one short transaction, so that a
reader sees the whole old slice or the whole new one. What a row must be is ``slice_rows``.

Every change of a table that others use takes its locks in a short transaction under a ``lock_timeout``
and is tried again: who waits for a lock makes all later comers wait behind it. Attaching a leaf locks
experiments, runs and models too, exclusively, since its foreign keys become the parent's. The timeout is
shorter than ``deadlock_timeout``, so that a deadlock ends our attempt and never another's transaction.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from ts_forecast.db import partitions
from ts_forecast.db.arrow import append_rows, read_arrow, replace_rows
from ts_forecast.db.engine import exclusive
from ts_forecast.errors import DatabaseError, PublishError
from ts_forecast.predictions.slice_rows import PREDICTION_SCHEMA, checked_rows, content_hash
from ts_forecast.quarters import Quarter

__all__ = ["PREDICTION_SCHEMA", "Published", "SliceVersion", "publish_slice", "read_slice"]
__all__ += ["slice_version"]

_ATTEMPTS = 12
_CLEARING_ATTEMPTS = 3
_LOCK_TIMEOUT_MS = 100
_LOCK_NOT_AVAILABLE, _DEADLOCK = "55P03", "40P01"


@dataclass(frozen=True)
class Published:
    """What became of a slice.

    Attributes:
        changed: False if the same rows stood already and nothing was written.
        content_hash: SHA-256 of the rows.
    """

    rows: int
    changed: bool
    content_hash: str
    seconds: float


@dataclass(frozen=True)
class SliceVersion:
    """Which rows a slice holds.

    Attributes:
        content_hash: SHA-256 of the rows.
        run_id: the run that published them.
    """

    content_hash: str
    rows: int
    run_id: int


def publish_slice(
    engine: Engine, *, experiment_id: int, run_id: int, quarter: Quarter, rows: pa.Table
) -> Published:
    """Make ``rows`` the slice; commits, in transactions of its own.

    One writer a slice at a time, by an advisory lock. A writer that dies leaves at most a table that no
    reader sees, which the next one drops.

    Args:
        rows: in ``PREDICTION_SCHEMA``, any order.

    Raises:
        PublishError: a row is malformed, twice there or outside of the quarter, or PostgreSQL refused;
            readers still see the previous slice.
    """
    begun = time.monotonic()
    rows = checked_rows(rows, quarter)
    new_hash = content_hash(rows)
    leaf = partitions.leaf_table(quarter, experiment_id)
    comment = f"sha256:{new_hash} rows:{rows.num_rows} run:{run_id}"
    with exclusive(engine, "slice", leaf):
        with Session(engine) as session:
            standing = slice_version(session, experiment_id, quarter)
        if standing is not None and standing.content_hash == new_hash:
            return Published(rows.num_rows, False, new_hash, time.monotonic() - begun)
        try:
            _publish(engine, quarter, experiment_id, run_id, leaf, rows, comment)
        except PublishError:
            raise
        except (DBAPIError, DatabaseError) as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise PublishError(
                f"The slice of experiment {experiment_id}, {quarter.label} was not published: "
                f"{reason}.",
                remedy="Readers still see the previous one; materialize predictions again.",
            ) from error
    return Published(rows.num_rows, True, new_hash, time.monotonic() - begun)


def slice_version(session: Session, experiment_id: int, quarter: Quarter) -> SliceVersion | None:
    """Which rows the slice holds now; None if it was never published."""
    comment = session.scalar(
        text(
            "SELECT obj_description(oid, 'pg_class') FROM pg_class "
            "WHERE oid = to_regclass(:leaf) AND relispartition"
        ),
        {"leaf": partitions.leaf_table(quarter, experiment_id)},
    )
    if comment is None:
        return None
    marks = dict(part.split(":", 1) for part in str(comment).split())
    return SliceVersion(marks["sha256"], int(marks["rows"]), int(marks["run"]))


def read_slice(
    engine: Engine, *, experiment_id: int, quarter: Quarter, model_id: int | None = None
) -> pa.Table:
    """The rows of a slice, in ``PREDICTION_SCHEMA``; empty if there is none."""
    query = (
        f"SELECT {', '.join(PREDICTION_SCHEMA.names)} FROM predictions "
        "WHERE experiment_id = $1 AND prediction_date >= $2 AND prediction_date < $3"
    )
    parameters = [experiment_id, quarter.start, quarter.end]
    if model_id is not None:
        query += " AND model_id = $4"
        parameters.append(model_id)
    return read_arrow(engine, query, parameters).cast(PREDICTION_SCHEMA)


def _publish(
    engine: Engine,
    quarter: Quarter,
    experiment_id: int,
    run_id: int,
    leaf: str,
    rows: pa.Table,
    comment: str,
) -> None:
    token = secrets.token_hex(4)
    offline, retired = f"{leaf}_n{token}", f"{leaf}_o{token}"
    full = rows.append_column("experiment_id", pa.repeat(pa.scalar(experiment_id), rows.num_rows))
    full = full.append_column("run_id", pa.repeat(pa.scalar(run_id), rows.num_rows))

    def swap(work: Connection) -> None:
        if partitions.is_attached(work, leaf):
            partitions.detach_leaf(work, quarter, leaf)
            work.execute(text(f"ALTER TABLE {leaf} RENAME TO {retired}"))
        work.execute(text(f"ALTER TABLE {offline} RENAME TO {leaf}"))
        partitions.attach_leaf(work, quarter, leaf, experiment_id)

    def attach_empty(work: Connection) -> None:
        if not partitions.is_attached(work, leaf):
            partitions.create_detached_leaf(work, leaf)
            partitions.attach_leaf(work, quarter, leaf, experiment_id)

    _clear_orphans(engine, quarter, experiment_id)
    with exclusive(engine, "quarter", partitions.quarter_table(quarter)):
        _insist(engine, lambda work: partitions.ensure_quarter(work, quarter))
    try:
        with engine.begin() as work:
            partitions.refuse_detached(work, leaf)
            partitions.create_detached_leaf(work, offline)
        append_rows(engine, offline, full)
        with engine.begin() as work:
            partitions.finish_leaf(work, offline, quarter, experiment_id, comment)
        _insist(engine, lambda work: partitions.reference_leaf(work, offline))
        with engine.begin() as work:
            partitions.validate_leaf(work, offline)
        if not _changed(engine, swap, _ATTEMPTS):
            # Somebody reads all the while, a backup say: replace the rows under them. An empty leaf
            # can be attached, for it takes its foreign keys from the parent and locks no reader out.
            _insist(engine, attach_empty)
            with engine.begin() as work:
                work.execute(text(f"ALTER TABLE {offline} RENAME TO {retired}"))
            replace_rows(engine, leaf, full, comment=comment)
    finally:
        _clear_orphans(engine, quarter, experiment_id)


def _insist(engine: Engine, change: Callable[[Connection], object]) -> None:
    if not _changed(engine, change, _ATTEMPTS):
        raise PublishError(
            "The slice was not published: another session keeps a lock on predictions, experiments, "
            "runs or models.",
            remedy="Find it in pg_stat_activity and end it; then materialize predictions again.",
        )


def _changed(engine: Engine, change: Callable[[Connection], object], attempts: int) -> bool:
    """Change tables that others use; False if they kept their locks through all attempts."""
    for attempt in range(attempts):
        try:
            with engine.begin() as work:
                work.execute(text(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}"))
                change(work)
            return True
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
                raise
            time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
    return False


def _clear_orphans(engine: Engine, quarter: Quarter, experiment_id: int) -> None:
    """Drop leaves that were retired, and those that this slice's writers did not finish.

    One that cannot be dropped now is found again by the next writer.
    """
    with engine.connect() as connection:
        names = partitions.orphans(connection, quarter, experiment_id)
    for name in names:
        _changed(engine, partial(partitions.drop, name=name), _CLEARING_ATTEMPTS)
