"""The rows of a slice: their schema, what is refused before anything is written, their hash.

Pure Arrow; publishing them is ``slice``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ts_forecast.errors import PublishError
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


def checked_rows(rows: pa.Table, quarter: Quarter) -> pa.Table:
    """The rows in the schema and in the key's order.

    Raises:
        PublishError: a row is malformed, twice there or outside of the quarter; names the first.
    """
    where = f"Slice {quarter.label}"
    try:
        rows = rows.select(PREDICTION_SCHEMA.names).cast(PREDICTION_SCHEMA)
        # Half a surrogate pair, say: no text, and what follows would stumble over it.
        rows["unique_id"].validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError) as error:
        raise PublishError(f"{where}: the rows are not forecasts: {error}.") from error
    if not rows.num_rows:
        raise PublishError(f"{where}: there is no forecast in it.")
    # First of all: a date beyond the year 9999 cannot even be shown.
    dates = pc.min_max(rows["prediction_date"])
    first, last = (np.datetime64(dates[end].value, "us") for end in ("min", "max"))
    if first < np.datetime64(quarter.start) or last >= np.datetime64(quarter.end):
        raise PublishError(
            f"{where}: a prediction date lies outside of the quarter ({first} to {last})."
        )
    for is_bad, problem in _malformed(rows):
        if pc.any(is_bad).as_py():
            row = rows.filter(is_bad).slice(0, 1).to_pylist()[0]
            name = row["unique_id"] if len(row["unique_id"]) <= 60 else row["unique_id"][:60] + "…"
            raise PublishError(
                f"{where}: {problem.format(**row)} for series {name!r} at "
                f"{row['prediction_date']}, horizon {row['horizon']}."
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


def _malformed(rows: pa.Table) -> Iterator[tuple[pa.ChunkedArray, str]]:
    """Which rows are malformed, and in which way, one way after another."""
    ids = rows["unique_id"]
    yield pc.equal(ids, ""), "unique_id is empty"
    yield pc.greater(pc.utf8_length(ids), 255), "unique_id is over 255 characters"
    yield pc.match_substring(ids, "\0"), "unique_id holds NUL"
    yield pc.less(rows["horizon"], 1), "horizon is below 1"
    for name in ("predicted_value", "actual_value", "lower_bound", "upper_bound"):
        yield _or_false(pc.invert(pc.is_finite(rows[name]))), f"{name} is {{{name}}}"
    yield (
        pa.chunked_array([pa.array(_has_no_number(rows["quantiles"]))]),
        ("quantiles are {quantiles}"),
    )
    level = rows["confidence_level"]
    inside = pc.and_(pc.greater(level, 0.0), pc.less(level, 1.0))
    yield _or_false(pc.invert(inside)), "confidence_level is {confidence_level}"
    yield (
        _or_false(pc.greater(rows["lower_bound"], rows["upper_bound"])),
        ("lower_bound {lower_bound} is above upper_bound {upper_bound}"),
    )


def _or_false(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(mask, False)


def content_hash(rows: pa.Table) -> str:
    """SHA-256 of sorted rows, whatever their chunks."""
    digest = hashlib.sha256()
    with pa.ipc.new_stream(_HashSink(digest), PREDICTION_SCHEMA) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=65_536)
    return digest.hexdigest()


def _has_no_number(lists: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the lists hold a null, NaN or an infinity."""
    lists = lists.combine_chunks()
    finite = pc.fill_null(pc.is_finite(pc.list_flatten(lists)), False)
    parents = pc.list_parent_indices(lists).filter(pc.invert(finite))
    bad = np.zeros(len(lists), dtype=bool)
    bad[parents.to_numpy()] = True
    return bad


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
