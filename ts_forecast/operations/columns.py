"""Guessing what the columns of a file are, and its frequency, where the user did not say.

Guesses are few and announced; where two are possible the user is asked. The readers judge the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ts_forecast.datasets.columns import Origin, to_timestamps
from ts_forecast.datasets.tabular import file_format, first_row_number, read_table
from ts_forecast.errors import SourceError
from ts_forecast.frequency import Grid
from ts_forecast.pipeline_source import FileFormat

_TIMES = ("ds", "date", "datetime", "timestamp", "time", "day", "month")
_IDS = ("unique_id", "series_id", "item_id", "series", "id")
_TARGETS = ("y", "target", "value", "price", "sales", "load", "demand")
_PLACEHOLDER = "{unique_id}"
_SAMPLE = 200
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


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

    Args:
        target_column: with ``{unique_id}`` in it, the pattern of a wide file's columns.

    Raises:
        SourceError: something can be several things, or nothing, or a given column is not there; says
            which option decides.
    """
    kind = file_format(path, kind)
    file = _File(path, kind, read_table(path, kind=kind))
    is_wide = target_column is not None and _PLACEHOLDER in target_column
    given = {"--time-column": time_column, "--id-column": id_column}
    for option, name in (given | {"--target-column": None if is_wide else target_column}).items():
        if name is not None and name not in file.table.column_names:
            raise file.ask(f"there is no column {name!r}", option)
    guessed: list[str] = []
    if time_column is None:
        time_column = file.guess_time()
        guessed.append(f"time column {time_column!r}")
    stamps = file.stamps(time_column)
    if id_column is None and not is_wide:
        id_column = file.guess_id(time_column, target_column, repeats=not stamps.is_unique)
        guessed.append(f"series column {id_column!r}" if id_column else "one series")
    if target_column is None:
        target_column = file.guess_target(time_column, id_column)
        guessed.append(f"target column {target_column!r}")
    if frequency is None:
        frequency = _guess_frequency(stamps)
        if frequency is None:
            raise file.ask(
                f"the timestamps of {time_column!r} fit no frequency that is finer than a year and "
                "regular",
                "--frequency",
            )
        guessed.append(f"frequency {frequency!r}")
    is_one = id_column is None and not is_wide
    source = {
        "files": str(path),
        "format": kind,
        "time_column": time_column,
        "id_column": id_column,
        "series_name": re.sub(r"\W+", "_", path.stem) if is_one else None,
        "target_column": "y" if is_wide else target_column,
        "wide": {"target": target_column} if is_wide else None,
    }
    return Columns(source, frequency, tuple(guessed))


@dataclass(frozen=True)
class _File:
    path: Path
    kind: FileFormat
    table: pa.Table

    def guess_time(self) -> str:
        names = self.table.column_names
        known = _known(names, _TIMES)
        if known is not None:
            return known
        found = [name for name in names if _holds_times(self.table[name])]
        if len(found) != 1:
            what = "several columns could be" if found else "no column looks like"
            raise self.ask(f"{what} the time", "--time-column")
        return found[0]

    def guess_id(self, time: str, target: str | None, *, repeats: bool) -> str | None:
        """The series' column; None where every timestamp stands once: one series."""
        if not repeats:
            return None
        rest = [name for name in self.table.column_names if name not in (time, target)]
        # A number of each row is no series.
        rest = [name for name in rest if pc.count_distinct(self.table[name]).as_py() < len(self)]
        known = _known(rest, _IDS)
        if known is not None:
            return known
        texts = [name for name in rest if not _holds_numbers(self.table[name])]
        if len(texts) != 1:
            what = "several columns could be" if texts else "no column looks like"
            raise self.ask(f"timestamps stand more than once, and {what} the series", "--id-column")
        return texts[0]

    def guess_target(self, time: str, series: str | None) -> str:
        rest = [name for name in self.table.column_names if name not in (time, series)]
        known = _known(rest, _TARGETS)
        if known is not None:
            return known
        numeric = [name for name in rest if _holds_numbers(self.table[name])]
        if len(numeric) != 1:
            what = "several columns could be" if numeric else "no column looks like"
            raise self.ask(f"{what} the target", "--target-column")
        return numeric[0]

    def stamps(self, time: str) -> pd.DatetimeIndex:
        origin = Origin(self.path, time, first_row_number(self.kind))
        return to_timestamps(self.table[time], origin, None)

    def ask(self, problem: str, option: str) -> SourceError:
        names = self.table.column_names
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        listed = ", ".join(map(repr, names[:20])) + more
        wide = f" (a pattern with {_PLACEHOLDER} for one column a series)"
        return SourceError(
            f"{self.path}: {problem}. The file has {listed}.",
            remedy=f"Say which with {option}{wide if option == '--target-column' else ''}.",
        )

    def __len__(self) -> int:
        return int(self.table.num_rows)


def _known(names: list[str], wanted: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def _holds_numbers(column: pa.ChunkedArray) -> bool:
    if not _is_text(column):
        return bool(pa.types.is_floating(column.type) or pa.types.is_integer(column.type))
    sample = column.drop_null().slice(0, _SAMPLE).to_pandas()
    return len(sample) > 0 and bool(pd.to_numeric(sample, errors="coerce").notna().all())


def _holds_times(column: pa.ChunkedArray) -> bool:
    if not _is_text(column):
        return bool(pa.types.is_timestamp(column.type) or pa.types.is_date(column.type))
    sample = column.drop_null().slice(0, _SAMPLE).to_pandas()
    if not len(sample) or _holds_numbers(column):
        return False
    parsed = pd.to_datetime(sample, format="ISO8601", errors="coerce", utc=True)
    return bool(parsed.notna().all())


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _guess_frequency(stamps: pd.DatetimeIndex) -> str | None:
    """The coarsest grid that all timestamps lie on, most of them one step apart; gaps may be."""
    unique = stamps.unique().sort_values()
    if len(unique) < 3:
        return None
    for alias in _candidates(unique):
        grid = Grid(alias)
        if grid.on_grid(unique).all() and (np.diff(grid.index(unique)) == 1).mean() > 0.5:
            return alias
    return None


def _candidates(unique: pd.DatetimeIndex) -> Iterator[str]:
    """Aliases from coarse to fine; of quarters and weeks only those that the first fits."""
    first, step = unique[0], pd.Series(unique).diff().mode()[0]
    yield from (f"{unit}-{_MONTHS[first.month - 1]}" for unit in ("QS", "QE"))
    yield from ("MS", "ME", f"W-{_DAYS[first.weekday()]}", "B", "D")
    if pd.Timedelta("1ms") <= step <= pd.Timedelta("31D"):
        yield str(pd.tseries.frequencies.to_offset(step).freqstr)
