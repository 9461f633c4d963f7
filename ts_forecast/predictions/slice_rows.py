"""The rows of a slice: their schema, what is refused before anything is written, their hash.

Pure Arrow; publishing them is ``slice``.
"""

from __future__ import annotations

import hashlib

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
    crossed = pc.fill_null(pc.greater(rows["lower_bound"], rows["upper_bound"]), False)
    if pc.any(crossed).as_py():
        first = rows.filter(crossed).slice(0, 1).to_pylist()[0]
        raise PublishError(
            f"Slice {quarter.label}: lower_bound {first['lower_bound']} is above upper_bound "
            f"{first['upper_bound']} for series {first['unique_id']!r} at "
            f"{first['prediction_date']}, horizon {first['horizon']}."
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
