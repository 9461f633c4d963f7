"""Turning raw columns into timestamps, identifiers and numbers; each bad cell is named.

Vectorized: a cell is looked at singly only to say what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ts_forecast.errors import SourceError

_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"
LONGEST_ID = 255
# What stands for a missing number in text; as an identifier, NA may be Namibia.
_MISSING = ["NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


@dataclass(frozen=True)
class Origin:
    """Where a column came from, for messages.

    Attributes:
        path: what its text names: a file, a URL, a query.
        first_row: number of the first data row in the file.
    """

    path: object
    column: str
    first_row: int

    def refuse(self, bad: npt.NDArray[np.bool_], values: pa.ChunkedArray, why: str) -> SourceError:
        """The error for the first bad cell."""
        position = int(np.flatnonzero(bad)[0])
        value = values[position].as_py()
        count = int(bad.sum())
        others = f" ({count} such rows in all)" if count > 1 else ""
        return SourceError(
            f"{self.path}, row {position + self.first_row}, column {self.column!r}: "
            f"{_shown(value)} {why}{others}.",
            remedy="Correct the file; nothing of it was stored.",
        )


def to_timestamps(
    values: pa.ChunkedArray, origin: Origin, time_format: str | None
) -> pd.DatetimeIndex:
    """Naive UTC timestamps in nanoseconds.

    Raises:
        SourceError: a cell is empty, does not parse, lies out of range, or the zones are mixed.
    """
    kind = values.type
    empty = pc.is_null(values).to_numpy(zero_copy_only=False)
    if empty.any():
        raise origin.refuse(empty, values, "is no timestamp")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _in_range(values.cast(_as_utc(kind)).to_pandas(), values, origin)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise origin.refuse(np.ones(len(values), bool), values, f"is {kind}, not a timestamp")
    text = values.to_pandas().str.strip()
    may_have_zone = time_format is None or "%z" in time_format
    zoned = text.str.extract(f"({_ZONE})", expand=False) if may_have_zone else None
    if zoned is not None and zoned.notna().any():
        zones = zoned.fillna("none").replace({"z": "+00:00", "Z": "+00:00", "+0000": "+00:00"})
        odd = (zones != zones.iloc[0]).to_numpy()
        if odd.any():
            raise origin.refuse(
                odd, values, f"is of another time zone than {text.iloc[0]!r} in the first row"
            )
    parsed = pd.to_datetime(text, format=time_format or "ISO8601", errors="coerce", utc=True)
    bad = parsed.isna().to_numpy()
    if time_format is None:
        # pandas takes `now` and `today` for timestamps.
        bad |= ~text.str.match(r"\d").to_numpy(dtype=bool)
    if bad.any():
        wanted = f"in the format {time_format!r}" if time_format else "in ISO 8601"
        raise origin.refuse(bad, values, f"is no timestamp {wanted}")
    return _in_range(parsed.dt.tz_localize(None), values, origin)


def _as_utc(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else pa.timestamp("s")


def _in_range(stamps: pd.Series, values: pa.ChunkedArray, origin: Origin) -> pd.DatetimeIndex:
    if stamps.dt.tz is not None:
        stamps = stamps.dt.tz_convert("UTC").dt.tz_localize(None)
    odd = ((stamps < pd.Timestamp("1700-01-01")) | (stamps > pd.Timestamp("2250-01-01"))).to_numpy()
    if odd.any():
        raise origin.refuse(odd, values, "lies outside of 1700 to 2250")
    return pd.DatetimeIndex(stamps).as_unit("ns")


def to_ids(values: pa.ChunkedArray, origin: Origin) -> pd.Series:
    """Identifiers as strings.

    Raises:
        SourceError: one is empty, longer than 255 characters or holds a NUL.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        text = values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise origin.refuse(
            np.ones(len(values), bool), values, f"is {values.type}, not an identifier"
        ) from None
    lengths = pc.fill_null(pc.utf8_length(text), 0)
    for bad, why in (
        (pc.equal(lengths, 0), "is no identifier"),
        (pc.greater(lengths, LONGEST_ID), f"is longer than {LONGEST_ID} characters"),
        (pc.fill_null(pc.match_substring(text, "\0"), False), "holds a NUL"),
    ):
        if pc.any(bad).as_py():
            raise origin.refuse(bad.to_numpy(zero_copy_only=False), values, why)
    return text.to_pandas().astype("object")


def to_numbers(
    values: pa.ChunkedArray, origin: Origin, *, allow_boolean: bool
) -> npt.NDArray[np.float64]:
    """Double-precision numbers; empty cells, and ``NA`` and its like in text, are NaN.

    Raises:
        SourceError: a cell is no number, or infinite.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    missing = pc.is_null(values).to_numpy(zero_copy_only=False)
    if pa.types.is_null(kind):
        return np.full(len(values), np.nan)
    if pa.types.is_boolean(kind) and not allow_boolean:
        raise origin.refuse(~missing, values, "is a boolean, not a number")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        is_missing = pc.or_(pc.is_null(values), pc.is_in(values, pa.array(_MISSING, kind)))
        missing = is_missing.to_numpy(zero_copy_only=False)
        text = pc.utf8_trim_whitespace(pc.if_else(is_missing, pa.scalar(None, kind), values))
        numbers = _parsed(text)
        bad = np.isnan(numbers) & ~missing
        if bad.any():
            raise origin.refuse(bad, values, "is no number")
    else:
        try:
            numbers = values.cast(pa.float64(), safe=False).to_pandas().to_numpy(dtype=np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise origin.refuse(~missing, values, f"is {kind}, not a number") from None
    infinite = np.isinf(numbers)
    if infinite.any():
        raise origin.refuse(infinite, values, "is infinite")
    return numbers


def _parsed(text: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Numbers to the last bit, which pandas' parser does not give; NaN where there is none."""
    try:
        return text.cast(pa.float64()).to_pandas().to_numpy(dtype=np.float64)
    except pa.ArrowInvalid:
        # A bad cell; or a spelling that Arrow does not know, such as +5.
        cells = text.to_pandas().astype("object")
        known = pd.to_numeric(cells, errors="coerce").notna()
        return cells.where(known, None).astype(np.float64).to_numpy()


def _shown(value: object) -> str:
    if value is None:
        return "an empty cell"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def series_codes(names: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """The number of each row's series, and the names in ascending order."""
    if not isinstance(names.dtype, pd.CategoricalDtype):
        codes, ids = pd.factorize(names, sort=True)
        return codes.astype(np.int64), np.asarray(ids, dtype=object)
    categories = np.asarray(names.cat.categories, dtype=object)
    order = np.argsort(categories)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[names.cat.codes.to_numpy()], categories[order]
