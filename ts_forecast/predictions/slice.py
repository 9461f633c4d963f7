"""Publishing the forecasts of a pipeline and a quarter, all at once or not at all.

A slice is built offline in a table of its own and swapped in within one short transaction, so that a
reader sees the whole old slice or the whole new one. What the rows are is decided by the callers.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from ts_forecast.db import partitions
from ts_forecast.db.arrow import append_rows, read_arrow, replace_rows
from ts_forecast.db.engine import exclusive
from ts_forecast.errors import DatabaseError, PublishError
from ts_forecast.quarters import Quarter

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("model_id", pa.int64(), nullable=False),
        pa.field("unique_id", pa.string(), nullable=False),
        pa.field("prediction_date", pa.timestamp("us"), nullable=False),
        pa.field("horizon", pa.int32(), nullable=False),
        pa.field("predicted_value", pa.float64(), nullable=False),
        pa.field("actual_value", pa.float64()),
        pa.field("lower_bound", pa.float64()),
        pa.field("upper_bound", pa.float64()),
        pa.field("confidence_level", pa.float64()),
        pa.field("quantiles", pa.list_(pa.float64())),
    ]
)
"""The columns that callers give; publishing adds the pipeline, the run and the defaults."""

_SWAP_ATTEMPTS = 12
_LOCK_TIMEOUT_MS = 100
_DROP_LOCK_TIMEOUT_MS = 500


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
    rows = _checked(rows, quarter)
    content_hash = _content_hash(rows)
    leaf = partitions.leaf_table(quarter, experiment_id)
    comment = f"sha256:{content_hash} rows:{rows.num_rows} run:{run_id}"
    with exclusive(engine, "slice", leaf):
        with Session(engine) as session:
            standing = slice_version(session, experiment_id, quarter)
        if standing is not None and standing.content_hash == content_hash:
            return Published(rows.num_rows, False, content_hash, time.monotonic() - begun)
        try:
            _publish(engine, quarter, experiment_id, run_id, leaf, rows, comment)
        except (DBAPIError, DatabaseError) as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise PublishError(
                f"The slice of experiment {experiment_id}, {quarter.label} was not published: "
                f"{reason}.",
                remedy="Readers still see the previous one; materialize predictions again.",
            ) from error
    return Published(rows.num_rows, True, content_hash, time.monotonic() - begun)


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
    _clear_orphans(engine, quarter, experiment_id)
    with exclusive(engine, "quarter", partitions.quarter_table(quarter)), engine.begin() as work:
        partitions.ensure_quarter(work, quarter)
    with engine.begin() as work:
        partitions.create_detached_leaf(work, offline)
    full = rows.append_column("experiment_id", pa.repeat(pa.scalar(experiment_id), rows.num_rows))
    full = full.append_column("run_id", pa.repeat(pa.scalar(run_id), rows.num_rows))
    try:
        append_rows(engine, offline, full)
        with engine.begin() as work:
            partitions.finish_leaf(work, offline, quarter, experiment_id, comment)
        with engine.begin() as work:
            partitions.validate_leaf(work, offline)
        if not _swap(engine, quarter, experiment_id, leaf, offline, retired):
            # Readers that never let go of the quarter: replace the rows under them.
            replace_rows(engine, leaf, full, comment=comment)
    finally:
        _clear_orphans(engine, quarter, experiment_id)


def _swap(
    engine: Engine, quarter: Quarter, experiment_id: int, leaf: str, offline: str, retired: str
) -> bool:
    """Swap the leaf in; False if a reader kept its lock through all attempts."""
    for attempt in range(_SWAP_ATTEMPTS):
        try:
            with engine.begin() as work:
                # Whoever waits for a lock makes readers wait behind it: give up soon, try again.
                work.execute(text(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}"))
                is_replaced = partitions.is_attached(work, leaf)
                if is_replaced:
                    partitions.detach_leaf(work, quarter, leaf)
                    work.execute(text(f"ALTER TABLE {leaf} RENAME TO {retired}"))
                work.execute(text(f"ALTER TABLE {offline} RENAME TO {leaf}"))
                partitions.attach_leaf(work, quarter, leaf, experiment_id)
            return True
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in ("55P03", "40P01"):
                raise
            time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
    with engine.connect() as connection:
        if partitions.is_attached(connection, leaf):
            return False
    raise PublishError(
        f"The first slice of experiment {experiment_id}, {quarter.label} could not be attached.",
        remedy="Another session locks the predictions table; see pg_stat_activity.",
    )


def _clear_orphans(engine: Engine, quarter: Quarter, experiment_id: int) -> None:
    """Drop what this slice's earlier writers left; never in the way of others."""
    try:
        with engine.begin() as work:
            work.execute(text(f"SET LOCAL lock_timeout = {_DROP_LOCK_TIMEOUT_MS}"))
            for name in partitions.orphans(work, quarter, experiment_id):
                work.execute(text(f"DROP TABLE {name}"))
    except OperationalError:
        return  # The next writer finds them again.


def _checked(rows: pa.Table, quarter: Quarter) -> pa.Table:
    """The rows in the schema and in the key's order, or a ``PublishError`` that names the fault."""
    try:
        rows = rows.select(PREDICTION_SCHEMA.names).cast(PREDICTION_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError) as error:
        raise PublishError(
            f"Slice {quarter.label}: the rows are not forecasts: {error}."
        ) from error
    if not rows.num_rows:
        raise PublishError(f"Slice {quarter.label}: there is no forecast in it.")
    for name in ("predicted_value", "actual_value", "lower_bound", "upper_bound"):
        bad = pc.fill_null(pc.invert(pc.is_finite(rows[name])), False)
        if pc.any(bad).as_py():
            first = rows.filter(bad).slice(0, 1).to_pylist()[0]
            raise PublishError(
                f"Slice {quarter.label}: {name} is {first[name]} for series {first['unique_id']!r} "
                f"at {first['prediction_date']}, horizon {first['horizon']}."
            )
    bad = _has_no_number(rows["quantiles"])
    if bad.any():
        first = rows.slice(int(np.flatnonzero(bad)[0]), 1).to_pylist()[0]
        raise PublishError(
            f"Slice {quarter.label}: quantiles are {first['quantiles']} for series "
            f"{first['unique_id']!r} at {first['prediction_date']}, horizon {first['horizon']}."
        )
    lengths = pc.utf8_length(rows["unique_id"])
    if pc.any(pc.or_(pc.equal(lengths, 0), pc.greater(lengths, 255))).as_py():
        raise PublishError(f"Slice {quarter.label}: a unique_id is empty or over 255 characters.")
    if pc.any(pc.less(rows["horizon"], 1)).as_py():
        raise PublishError(f"Slice {quarter.label}: a horizon is below 1.")
    dates = rows["prediction_date"]
    first, last = pc.min(dates).as_py(), pc.max(dates).as_py()
    if first < quarter.start or last >= quarter.end:
        raise PublishError(
            f"Slice {quarter.label}: a prediction date lies outside of the quarter "
            f"({first} to {last})."
        )
    keys = ["model_id", "unique_id", "prediction_date", "horizon"]
    rows = rows.sort_by([(key, "ascending") for key in keys])
    if rows.num_rows > 1:
        same = np.ones(rows.num_rows - 1, dtype=bool)
        for key in keys:
            column = rows[key].combine_chunks()
            same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        if same.any():
            twin = rows.slice(int(np.flatnonzero(same)[0]), 1).to_pylist()[0]
            raise PublishError(
                f"Slice {quarter.label}: the forecast of series {twin['unique_id']!r} for "
                f"{twin['prediction_date']}, horizon {twin['horizon']} stands twice."
            )
    return rows


def _has_no_number(lists: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the lists hold a null, NaN or an infinity."""
    lists = lists.combine_chunks()
    finite = pc.fill_null(pc.is_finite(pc.list_flatten(lists)), False)
    parents = pc.list_parent_indices(lists).filter(pc.invert(finite))
    bad = np.zeros(len(lists), dtype=bool)
    bad[parents.to_numpy()] = True
    return bad


def _content_hash(rows: pa.Table) -> str:
    """SHA-256 of sorted rows, whatever their chunks."""
    digest = hashlib.sha256()
    with pa.ipc.new_stream(_HashSink(digest), PREDICTION_SCHEMA) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=65_536)
    return digest.hexdigest()


class _HashSink:
    """A file that remembers only its hash."""

    closed = False

    def __init__(self, digest: hashlib._Hash) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...
