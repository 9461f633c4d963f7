"""Publishing the forecasts of a pipeline and a quarter, all at once or not at all.

A slice is built offline in a table of its own and swapped in within one short transaction, so that a
reader sees the whole old slice or the whole new one. What a row must be is ``slice_rows``.

Every change of a table that others use takes all its locks at the beginning of a short transaction
(``partitions.lock_for_change``), in little time or not at all, and is tried again: who waits for a lock
makes all later comers wait behind it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ts_forecast.db import partitions
from ts_forecast.db.arrow import append_rows, read_arrow, replace_rows
from ts_forecast.db.engine import exclusive
from ts_forecast.db.short_locks import with_short_locks
from ts_forecast.errors import DatabaseError, LockedError, PublishError
from ts_forecast.predictions.slice_rows import PREDICTION_SCHEMA, checked_rows, content_hash
from ts_forecast.quarters import Quarter

__all__ = ["PREDICTION_SCHEMA", "Published", "SliceVersion", "publish_slice", "read_slice"]
__all__ += ["slice_version"]

_CLEARING_ATTEMPTS = 3
_SHARED = "predictions, models, runs or experiments"


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

    @property
    def mark(self) -> str:
        """As the leaf's comment and the audit log say it."""
        return f"sha256:{self.content_hash} rows:{self.rows} run:{self.run_id}"


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
    new = SliceVersion(new_hash, rows.num_rows, run_id)
    with exclusive(engine, "slice", leaf):
        with Session(engine) as session:
            standing = slice_version(session, experiment_id, quarter)
            _refuse_unknown(session, experiment_id, run_id, rows, quarter)
        if standing is not None and standing.content_hash == new_hash:
            return Published(rows.num_rows, False, new_hash, time.monotonic() - begun)
        try:
            _publish(engine, quarter, experiment_id, leaf, rows, standing, new)
        except PublishError:
            raise
        except (DBAPIError, DatabaseError) as error:
            if _stands(engine, experiment_id, quarter, new_hash):
                # It was the answer that got lost, and not the commit.
                return Published(rows.num_rows, True, new_hash, time.monotonic() - begun)
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise PublishError(
                f"The slice of experiment {experiment_id}, {quarter.label} was not published: "
                f"{reason}.",
                remedy="Readers still see the previous one; materialize predictions again.",
            ) from error
    return Published(rows.num_rows, True, new_hash, time.monotonic() - begun)


def _stands(engine: Engine, experiment_id: int, quarter: Quarter, content_hash: str) -> bool:
    """Whether readers see the slice of that hash; False where the database does not answer."""
    try:
        with Session(engine) as session:
            version = slice_version(session, experiment_id, quarter)
    except DBAPIError:
        return False
    return version is not None and version.content_hash == content_hash


def _refuse_unknown(
    session: Session, experiment_id: int, run_id: int, rows: pa.Table, quarter: Quarter
) -> None:
    """Refuse rows of owners that are not there, before a million of them are copied."""
    wanted = {
        "experiment": ("experiments", [experiment_id]),
        "run": ("runs", [run_id]),
        "model": ("models", pc.unique(rows["model_id"]).to_pylist()),
    }
    for kind, (table, ids) in wanted.items():
        query = text(f"SELECT {kind}_id FROM {table} WHERE {kind}_id = ANY(:ids)")
        if missing := sorted(set(ids) - set(session.scalars(query, {"ids": ids}))):
            raise PublishError(
                f"Slice {quarter.label}: the database knows no {kind} {missing[0]}.",
                remedy="Materialize trained_models of the quarter first.",
            )


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
    engine: Engine,
    *,
    experiment_id: int,
    quarter: Quarter,
    model_ids: Sequence[int] | None = None,
) -> pa.Table:
    """The rows of a slice, in ``PREDICTION_SCHEMA``; empty if there is none.

    Args:
        model_ids: of these models alone.
    """
    query = (
        f"SELECT {', '.join(PREDICTION_SCHEMA.names)} FROM predictions "
        "WHERE experiment_id = $1 AND prediction_date >= $2 AND prediction_date < $3"
    )
    parameters = [experiment_id, quarter.start, quarter.end]
    if model_ids is not None:
        places = (f"${len(parameters) + n + 1}" for n in range(len(model_ids)))
        query += f" AND model_id IN ({', '.join(places)})"
        parameters += model_ids
    return read_arrow(engine, query, parameters).cast(PREDICTION_SCHEMA)


def _publish(
    engine: Engine,
    quarter: Quarter,
    experiment_id: int,
    leaf: str,
    rows: pa.Table,
    standing: SliceVersion | None,
    new: SliceVersion,
) -> None:
    token, table = secrets.token_hex(4), partitions.quarter_table(quarter)
    offline, retired = f"{leaf}_n{token}", f"{leaf}_o{token}"
    full = rows.append_column("experiment_id", pa.repeat(pa.scalar(experiment_id), rows.num_rows))
    full = full.append_column("run_id", pa.repeat(pa.scalar(new.run_id), rows.num_rows))
    audit = _audit_statement(leaf, standing, new)

    def swap(work: Connection) -> None:
        work.execute(text(audit))
        changed = [table, leaf] if partitions.is_attached(work, leaf) else [table]
        partitions.lock_for_change(work, "ACCESS EXCLUSIVE", *changed)
        partitions.swap_leaf(work, quarter, experiment_id, offline, retired)

    def attach_empty(work: Connection) -> None:
        if not partitions.is_attached(work, leaf):
            partitions.lock_for_change(work, "SHARE ROW EXCLUSIVE")
            partitions.create_detached_leaf(work, leaf)
            partitions.attach_leaf(work, quarter, leaf, experiment_id)

    def ensure_quarter(work: Connection) -> None:
        if not partitions.is_attached(work, table):
            partitions.lock_for_change(work, "SHARE ROW EXCLUSIVE")
            partitions.ensure_quarter(work, quarter)

    def reference(work: Connection) -> None:
        partitions.lock_for_change(work, "SHARE ROW EXCLUSIVE")
        partitions.reference_leaf(work, offline)

    _clear_orphans(engine, quarter, experiment_id)
    with exclusive(engine, "quarter", table):
        with_short_locks(engine, ensure_quarter, subject=_SHARED)
    try:
        with engine.begin() as work:
            partitions.refuse_detached(work, leaf)
            partitions.create_detached_leaf(work, offline)
        append_rows(engine, offline, full)
        with engine.begin() as work:
            partitions.finish_leaf(work, offline, quarter, experiment_id, new.mark)
        with_short_locks(engine, reference, subject=_SHARED)
        with engine.begin() as work:
            partitions.validate_leaf(work, offline)
        try:
            with_short_locks(engine, swap, subject=_SHARED)
        except LockedError:
            # Somebody reads all the while, a backup say: replace the rows under them. An empty leaf
            # can be attached, for it takes its foreign keys from the parent and locks no reader out.
            with_short_locks(engine, attach_empty, subject=_SHARED)
            with engine.begin() as work:
                work.execute(text(f"ALTER TABLE {offline} RENAME TO {retired}"))
            replace_rows(engine, leaf, full, comment=new.mark, before=[audit])
    finally:
        _clear_orphans(engine, quarter, experiment_id)


def _audit_statement(leaf: str, standing: SliceVersion | None, new: SliceVersion) -> str:
    """A slice is audited whole, in the transaction that shows it to readers: one record a publish."""
    old = f"'{standing.mark}'" if standing is not None else "NULL"
    return f"SELECT audit.log_slice('{leaf}', {new.run_id}, {old}, '{new.mark}')"


def _clear_orphans(engine: Engine, quarter: Quarter, experiment_id: int) -> None:
    """Drop leaves that were retired, and those that this slice's writers did not finish.

    One that cannot be dropped now is found again by the next writer.
    """
    with engine.connect() as connection:
        names = partitions.orphans(connection, quarter, experiment_id)

    def unreference(name: str, work: Connection) -> None:
        if partitions.is_referencing(work, name):
            partitions.lock_for_change(work, "ACCESS EXCLUSIVE", name)
            partitions.unreference_leaf(work, name)

    for name in names:
        # Apart: a commit that deletes files takes its time, and nobody should wait for it.
        for change in (partial(unreference, name), partial(partitions.drop, name=name)):
            with suppress(LockedError):
                with_short_locks(engine, change, subject=name, attempts=_CLEARING_ATTEMPTS)
