"""Guessing what the columns of a file are, and its frequency, where the user did not say.

Guesses are few and announced; where two are possible the user is asked. The readers judge the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ts_forecast.datasets.tabular import file_format, read_table
from ts_forecast.errors import SourceError
from ts_forecast.pipeline import FileFormat

_TIMES = ("ds", "date", "datetime", "timestamp", "time", "day", "month")
_IDS = ("unique_id", "series_id", "item_id", "series", "id")
_TARGETS = ("y", "target", "value", "price", "sales", "load", "demand")
# What pandas calls the labels of a year's weeks, months and quarters, and we write otherwise.
_NAMES = {"min": "min", "h": "h", "D": "D", "B": "B", "MS": "MS", "ME": "ME"}


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are.

    Attributes:
        source: the ``source`` of a pipeline file.
        frequency: a pandas alias.
        guessed: what was not given, for the user: ``time column 'Date'``.
    """

    source: dict[str, Any]
    frequency: str
    guessed: tuple[str, ...]


def infer_columns(
    path: Path,
    *,
    kind: FileFormat | None = None,
    time_column: str | None = None,
    id_column: str | None = None,
    target_column: str | None = None,
    frequency: str | None = None,
) -> Columns:
    """The columns of a file, given or guessed.

    Raises:
        SourceError: something can be several things, or nothing; says which option decides.
    """
    table = read_table(path, kind=file_format(path, kind))
    guessed: list[str] = []
    names = list(table.column_names)
    if time_column is None:
        time_column = _known(names, _TIMES)
        if time_column is None:
            raise _ask(path, names, "no column looks like time", "--time-column")
        guessed.append(f"time column {time_column!r}")
    if id_column is None:
        id_column = _known([name for name in names if name != time_column], _IDS)
        guessed.append(f"series column {id_column!r}" if id_column else "one series")
    if target_column is None:
        rest = [name for name in names if name not in (time_column, id_column)]
        target_column = _known(rest, _TARGETS)
        if target_column is None:
            numeric = [name for name in rest if _is_numeric(table[name])]
            if len(numeric) != 1:
                what = "several columns could be" if numeric else "no column looks like"
                raise _ask(path, names, f"{what} the target", "--target-column")
            target_column = numeric[0]
        guessed.append(f"target column {target_column!r}")
    if frequency is None:
        frequency = _frequency(path, table, time_column, id_column)
        guessed.append(f"frequency {frequency!r}")
    source = {
        "files": str(path),
        "format": kind,
        "time_column": time_column,
        "id_column": id_column,
        "series_name": re.sub(r"\W+", "_", path.stem) if id_column is None else None,
        "target_column": target_column,
    }
    return Columns(source, frequency, tuple(guessed))


def _known(names: list[str], wanted: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def _is_numeric(column: pa.ChunkedArray) -> bool:
    if pa.types.is_string(column.type):
        return pd.to_numeric(column.slice(0, 200).to_pandas(), errors="coerce").notna().any()
    return pa.types.is_floating(column.type) or pa.types.is_integer(column.type)


def _frequency(path: Path, table: pa.Table, time_column: str, id_column: str | None) -> str:
    if id_column is not None and id_column in table.column_names:
        first = table[id_column][0]
        table = table.filter(pc.equal(table[id_column], first))
    if time_column not in table.column_names:
        raise _ask(path, list(table.column_names), f"there is no {time_column!r}", "--time-column")
    stamps = pd.to_datetime(table[time_column].to_pandas(), errors="coerce", utc=True)
    unique = pd.DatetimeIndex(stamps.dropna().unique()).tz_localize(None).sort_values()
    found = pd.infer_freq(unique[:500]) if len(unique) >= 3 else None
    if found is None and len(unique) >= 3:
        step = pd.Series(unique).diff().mode()[0]
        found = pd.tseries.frequencies.to_offset(step).freqstr
    if found is None:
        raise _ask(path, [], "it has too few timestamps to tell its frequency", "--frequency")
    base = found.split("-")[0].lstrip("1")
    return {"QS": found, "QE": found}.get(base, _NAMES.get(base, found))


def _ask(path: Path, names: list[str], problem: str, option: str) -> SourceError:
    listed = f" The file has {', '.join(map(repr, names[:20]))}." if names else ""
    return SourceError(f"{path}: {problem}.{listed}", remedy=f"Say which with {option}.")
