"""Reading a pipeline's source, files or a query, into the canonical long form.

``unique_id, ds, y`` and the temporal exogenous columns. What is wrong within one file is refused here,
with its row and column; what concerns all files together is ``validation``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from ts_forecast.datasets.columns import LONGEST_ID, Origin, to_ids, to_numbers, to_timestamps
from ts_forecast.datasets.sql_rows import SourceItem, SqlRows, sql_rows
from ts_forecast.datasets.tabular import file_format, first_row_number, read_table
from ts_forecast.errors import SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Found, Mark, Place, is_url, matching
from ts_forecast.settings import Settings


@dataclass(frozen=True)
class SourceFile:
    """A file of a source, or its query.

    Attributes:
        mark: as ``places.Found.mark``, or ``SqlRows.poll``.
    """

    path: SourceItem
    mark: Mark


def source_files(pipeline: Pipeline, settings: Settings) -> list[SourceFile]:
    """The files of the pipeline's patterns, by name: a later name restates earlier rows.

    Raises:
        SourceError: a pattern matches no file, or a query gives no row.
        StorageError: a store or database does not answer.
    """
    rows = sql_rows(pipeline, settings)
    if rows is not None:
        mark = rows.poll()
        if not mark[0]:
            raise SourceError(f"{rows}: the query of source.sql gives no row.")
        return [SourceFile(rows, mark)]
    found: dict[Place, Found] = {}
    for pattern in pipeline.source.patterns:
        matches = matching(settings.data_dir, pattern)
        if not matches:
            raise SourceError(
                f"Pipeline {pipeline.name}: source.files: no file matches {pattern!r}"
                f"{_where(settings, pattern)}.",
                remedy="Put the files there, or set DATA_DIR.",
            )
        found |= {file.place: file for file in matches}
    return [SourceFile(file.place, file.mark) for file in in_order(found.values())]


def in_order(files: Iterable[Found]) -> list[Found]:
    """Files as they are read: by name, wherever they lie."""
    return sorted(files, key=lambda file: (file.place.name, str(file.place)))


def _where(settings: Settings, pattern: str) -> str:
    return "" if is_url(pattern) else f" in {settings.data_dir}"


def read_source(path: SourceItem, pipeline: Pipeline) -> pd.DataFrame:
    """One file in the canonical form, in the file's order.

    Raises:
        SourceError: names file, row and column.
        StorageError: a store or database does not answer.
    """
    source = pipeline.source
    if isinstance(path, SqlRows):
        table, first_row = path.snapshot.table, 1
    else:
        kind = file_format(path, source.format)
        table = read_table(path, kind=kind, encoding=source.encoding, delimiter=source.delimiter)
        first_row = first_row_number(kind)
    _need(path, table, [source.time_column], "source.time_column")
    ds = to_timestamps(
        table[source.time_column],
        Origin(path, source.time_column, first_row),
        source.time_format,
    )
    _check_grid(path, pipeline, ds, table, first_row)
    if source.wide is not None:
        frame = _read_wide(path, pipeline, table, ds, first_row)
    else:
        frame = _read_long(path, pipeline, table, ds, first_row)
    _check_twins(path, frame, len(table), first_row)
    return frame


def _read_long(
    path: SourceItem, pipeline: Pipeline, table: pa.Table, ds: pd.DatetimeIndex, first_row: int
) -> pd.DataFrame:
    source = pipeline.source
    _need(path, table, [source.target_column], "source.target_column")
    _need(path, table, list(pipeline.exogenous.temporal), "exogenous")
    if source.id_column is None:
        ids: object = source.series_name or pipeline.name
    else:
        _need(path, table, [source.id_column], "source.id_column")
        ids = to_ids(table[source.id_column], Origin(path, source.id_column, first_row))
    columns = {"y": source.target_column} | {name: name for name in pipeline.exogenous.temporal}
    numbers = {
        name: to_numbers(table[column], Origin(path, column, first_row), allow_boolean=name != "y")
        for name, column in columns.items()
    }
    return pd.DataFrame({"unique_id": ids, "ds": ds, **numbers})


def _read_wide(
    path: SourceItem, pipeline: Pipeline, table: pa.Table, ds: pd.DatetimeIndex, first_row: int
) -> pd.DataFrame:
    wide = pipeline.source.wide
    assert wide is not None
    _need(path, table, list(wide.ignore), "source.wide.ignore")
    absent = sorted(set(pipeline.exogenous.temporal) - set(wide.exogenous))
    if absent:
        raise SourceError(
            f"Pipeline {pipeline.name}: exogenous column {absent[0]!r} has no pattern in "
            "source.wide.exogenous.",
            remedy=f"Add `{absent[0]}: '<prefix>{{unique_id}}'` there.",
        )
    taken = {pipeline.source.time_column, *wide.ignore}
    by_pattern = {
        name: _series_columns(table, wide.exogenous[name], taken)
        for name in pipeline.exogenous.temporal
    }
    for columns in by_pattern.values():
        taken.update(columns.values())
    targets = _series_columns(table, wide.target, taken)
    if not targets:
        raise SourceError(
            f"{path}: no column matches source.wide.target {wide.target!r}; "
            f"the file has {_listed(table.column_names)}."
        )
    for name, columns in by_pattern.items():
        lacking = sorted(set(targets) - set(columns))
        if lacking:
            raise SourceError(
                f"{path}: series {lacking[0]!r} has no column for {name!r} "
                f"({wide.exogenous[name]!r}); {len(lacking)} series lack one."
            )
    ids = sorted(targets)
    for unique_id in ids:
        if len(unique_id) > LONGEST_ID or "\0" in unique_id:
            raise SourceError(
                f"{path}, column {targets[unique_id][:60]!r}…: its series' name is longer than "
                f"{LONGEST_ID} characters or holds a NUL."
            )

    def stacked(columns: dict[str, str], allow_boolean: bool) -> np.ndarray:
        return np.concatenate(
            [
                to_numbers(
                    table[columns[unique_id]],
                    Origin(path, columns[unique_id], first_row),
                    allow_boolean=allow_boolean,
                )
                for unique_id in ids
            ]
        )

    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.asarray(ids, dtype=object), len(ds)),
            "ds": np.tile(ds.to_numpy(), len(ids)),
            "y": stacked(targets, False),
            **{name: stacked(columns, True) for name, columns in by_pattern.items()},
        }
    )


def _series_columns(table: pa.Table, pattern: str, taken: set[str]) -> dict[str, str]:
    """Column of each series that the pattern names."""
    before, after = pattern.split("{unique_id}")
    form = re.compile(f"^{re.escape(before)}(.+){re.escape(after)}$", re.DOTALL)
    found = {}
    for column in table.column_names:
        match = form.match(column)
        if match and column not in taken and not column.startswith("unnamed_"):
            found[match[1]] = column
    return found


def read_static(pipeline: Pipeline, settings: Settings) -> pd.DataFrame | None:
    """The static columns, indexed by ``unique_id``; None if the pipeline names none.

    Raises:
        SourceError: a column is absent, a series stands twice or a value is missing.
    """
    source = pipeline.source.static
    names = list(pipeline.exogenous.static)
    if source is None or not names:
        return None
    matches = matching(settings.data_dir, source.files)
    if len(matches) != 1:
        raise SourceError(
            f"Pipeline {pipeline.name}: source.static.files: {len(matches)} files match "
            f"{source.files!r}{_where(settings, source.files)}; one is needed."
        )
    path = matches[0].place
    kind = file_format(path, source.format)
    table = read_table(path, kind=kind, encoding=pipeline.source.encoding)
    first_row = first_row_number(kind)
    _need(path, table, [source.id_column, *names], "source.static and exogenous.static")
    ids = to_ids(table[source.id_column], Origin(path, source.id_column, first_row))
    if ids.duplicated().any():
        position = int(np.flatnonzero(ids.duplicated())[0])
        raise SourceError(
            f"{path}, row {position + first_row}: series {ids[position]!r} stands twice."
        )
    columns = {}
    for name in names:
        origin = Origin(path, name, first_row)
        columns[name] = to_numbers(table[name], origin, allow_boolean=True)
        if np.isnan(columns[name]).any():
            raise origin.refuse(np.isnan(columns[name]), table[name], "is no number")
    return pd.DataFrame(columns, index=pd.Index(ids, name="unique_id")).sort_index()


def _need(path: SourceItem, table: pa.Table, columns: list[str], key: str) -> None:
    for column in columns:
        if column not in table.column_names:
            lower = {name.lower(): name for name in table.column_names}
            close = difflib.get_close_matches(column.lower(), lower, n=1)
            hint = f"Did you mean {lower[close[0]]!r}? " if close else ""
            raise SourceError(
                f"{path}: there is no column {column!r}, named by {key}; "
                f"the file has {_listed(table.column_names)}.",
                remedy=f"{hint}Correct {key} in the pipeline file.",
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def _check_grid(
    path: SourceItem, pipeline: Pipeline, ds: pd.DatetimeIndex, table: pa.Table, first_row: int
) -> None:
    off = ~pipeline.grid.on_grid(ds)
    if off.any():
        origin = Origin(path, pipeline.source.time_column, first_row)
        raise origin.refuse(
            off,
            table[pipeline.source.time_column],
            f"lies off the grid of frequency {pipeline.frequency!r}",
        )


def _check_twins(path: SourceItem, frame: pd.DataFrame, file_rows: int, first_row: int) -> None:
    twins = frame.duplicated(["unique_id", "ds"], keep="first").to_numpy()
    if not twins.any():
        return
    second = int(np.flatnonzero(twins)[0])
    row = frame.iloc[second]
    same = (frame["unique_id"] == row["unique_id"]) & (frame["ds"] == row["ds"])
    first = int(np.flatnonzero(same.to_numpy())[0])
    # A wide file's rows are stacked series by series.
    rows = first % file_rows + first_row, second % file_rows + first_row
    raise SourceError(
        f"{path}, rows {rows[0]} and {rows[1]}: series {row['unique_id']!r} has two values at "
        f"{row['ds']} ({int(twins.sum())} such rows in all).",
        remedy="Keep one of them; nothing of the file was stored.",
    )
