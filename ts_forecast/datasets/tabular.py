"""Opening CSV, Parquet, JSON and Feather files as Arrow tables of raw columns.

Only what is wrong with a file as a file is judged here: empty, truncated, of another encoding or
format. What its columns mean is ``readers``. CSV cells stay strings, so that a bad one can be named.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as pa_feather
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from ts_forecast.errors import SourceError
from ts_forecast.object_cache import fetched
from ts_forecast.pipeline_source import FileFormat
from ts_forecast.places import Place

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".feather": "feather",
    ".arrow": "feather",
}


def file_format(path: Place, given: FileFormat | None) -> FileFormat:
    """The format that was given, or that of the file name's ending.

    Raises:
        SourceError: the ending says nothing.
    """
    found = given or _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise SourceError(
            f"{path}: the ending {path.suffix!r} names no format.",
            remedy="Set `format` to csv, parquet, json or feather.",
        )
    return found


def first_row_number(kind: FileFormat) -> int:
    """Number of the first data row in messages: files with a header start at 2."""
    return 2 if kind == "csv" else 1


def read_table(
    path: Place,
    *,
    kind: FileFormat,
    encoding: str = "utf-8",
    delimiter: str = ",",
) -> pa.Table:
    """All columns of a file; names are stripped of surrounding blanks.

    Raises:
        SourceError: it is missing, empty, truncated, not of the format or of another encoding, or two
            columns have the same name.
        StorageError: the store that it lies in does not answer.
    """
    try:
        local = fetched(path)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such object.") from None
    if not local.is_file():
        raise SourceError(f"{path}: there is no such file.")
    if local.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty.", remedy="Write it again; nothing was read.")
    try:
        if kind == "csv":
            table = _read_csv(local, encoding, delimiter)
        elif kind == "json":
            table = _read_json(local, encoding)
        elif kind == "parquet":
            table = pq.read_table(local)
        else:
            table = pa_feather.read_table(local)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, encoding, error) from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        if "UTF8" in reason or "codec" in reason:
            raise _wrong_encoding(path, encoding, error) from error
        raise SourceError(
            f"{path}: this is no readable {kind} file, or it is truncated: {reason}.",
            remedy="Write the file again, or correct `format`.",
        ) from error
    names = [str(name).strip() for name in table.column_names]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{path}: the column {twins[0]!r} stands twice in the header.")
    if not table.num_rows:
        raise SourceError(f"{path}: the file has a header and no rows.")
    return table.rename_columns(names)


def _read_csv(path: Path, encoding: str, delimiter: str) -> pa.Table:
    with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
        header = next(csv.reader(file, delimiter=delimiter), [])
    if any("\0" in name for name in header):
        raise ValueError("its header holds NUL bytes")
    # An unnamed column is what a trailing delimiter leaves.
    names = [name if name.strip() else f"unnamed_{i}" for i, name in enumerate(header)]
    return pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(encoding=encoding, column_names=names, skip_rows=1),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _read_json(path: Path, encoding: str) -> pa.Table:
    text = path.read_bytes().decode(encoding)
    if text.lstrip()[:1] != "[":
        try:
            return pa_json.read_json(pa.BufferReader(text.encode()))
        except pa.ArrowInvalid:
            # A column of two types; or no JSON, which is raised again here.
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        records = json.loads(text)
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("it is a list, but not of objects")
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table({name: _inferred([r.get(name) for r in records]) for name in names})


def _inferred(values: list[object]) -> pa.Array:
    """The values as a column; as text if they are of several types, so that a bad one can be named."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(
            [v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string()
        )


def _wrong_encoding(path: Place, encoding: str, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: this is not {encoding}: {' '.join(str(error).split())}.",
        remedy="Set `encoding` in the pipeline file, or write the file as UTF-8.",
    )
