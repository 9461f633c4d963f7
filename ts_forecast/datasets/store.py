"""Canonical Parquet files: content-addressed, written whole, the same bytes for the same rows.

Writing and reading them; which of them is a quarter's current version is ``quarter``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ts_forecast.errors import DatasetError
from ts_forecast.files import write_whole
from ts_forecast.object_cache import fetched
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Place, exists
from ts_forecast.settings import Settings

_NAME_LENGTH = 12


@dataclass(frozen=True)
class StoredTable:
    """A stored Parquet file.

    Attributes:
        content_hash: SHA-256 of the rows, whatever the library that wrote the file.
        file_hash: SHA-256 of the file's bytes.
    """

    path: Place
    content_hash: str
    file_hash: str
    size_bytes: int
    rows: int


def processed_folder(settings: Settings, pipeline: Pipeline) -> Place:
    """Where a pipeline's canonical files lie."""
    return settings.data_dir / "processed" / pipeline.name


def file_name(name: str, frame: pd.DataFrame) -> str:
    """The name under which ``store_frame`` would store a frame: it tells one content from another."""
    return _file_name(name, hash_table(_canonical(frame)))


def _file_name(name: str, content_hash: str) -> str:
    return f"{name}.{content_hash[:_NAME_LENGTH]}.parquet"


def store_frame(folder: Place, name: str, frame: pd.DataFrame) -> StoredTable:
    """Store a frame as ``<name>.<hash>.parquet``.

    A file of that content is left as it is; a damaged one of that name is written again.
    """
    table = _canonical(frame)
    content_hash = hash_table(table)
    path = folder / _file_name(name, content_hash)
    if not _holds(path, content_hash):
        write_whole(
            path,
            lambda draft: pq.write_table(
                table, draft, compression="zstd", use_dictionary=["unique_id"], version="2.6"
            ),
        )
    return StoredTable(
        path=path,
        content_hash=content_hash,
        file_hash=file_sha256(path),
        size_bytes=fetched(path).stat().st_size,
        rows=table.num_rows,
    )


def load_frame(path: Place, file_hash: str) -> pd.DataFrame:
    """A stored frame.

    Raises:
        DatasetError: the file is missing or not what its row says.
    """
    return _load(path, file_hash).to_pandas()


def load_frames(files: Sequence[tuple[Place, str]]) -> pd.DataFrame:
    """Stored frames, one below the other; ``unique_id`` is categorical.

    A column that a file lacks is empty there. Names are numbers until they are shown, so that ten
    thousand series over years take neither the time nor the memory of as many strings as rows.

    Raises:
        DatasetError: a file is missing or not what its row says.
    """
    tables = [_load(path, file_hash, dictionary=["unique_id"]) for path, file_hash in files]
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries().to_pandas()


def _load(path: Place, file_hash: str, dictionary: Sequence[str] = ()) -> pa.Table:
    """A stored table.

    Raises:
        DatasetError: the file is missing or not what its row says.
    """
    try:
        local = fetched(path)
        stat = local.stat()
    except OSError:
        raise DatasetError(
            f"The dataset file {path} is missing.",
            remedy="Materialize its quarter of datasets again.",
        ) from None
    if _hash_of(local, stat.st_size, stat.st_mtime_ns) != file_hash:
        raise DatasetError(
            f"The dataset file {path} is not what was stored: its SHA-256 differs from the row's.",
            remedy="Delete it and materialize its quarter of datasets again.",
        )
    return pq.read_table(local, read_dictionary=list(dictionary))


def _holds(path: Place, content_hash: str) -> bool:
    if not exists(path):
        return False
    try:
        return hash_table(pq.read_table(fetched(path))) == content_hash
    except (pa.ArrowException, OSError):
        return False


def hash_table(table: pa.Table) -> str:
    """SHA-256 of names, types and values, row by row order, independent of chunks."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(f"{name}:{column.type}:{len(column)}\n".encode())
        if pa.types.is_string(column.type):
            digest.update(_joined(column))
        else:
            # Nulls become one bit pattern, so that equal columns hash equally.
            digest.update(column.to_pandas().to_numpy().tobytes())
    return digest.hexdigest()


def _joined(column: pa.StringArray) -> memoryview:
    """The texts with a NUL between each two, without a Python string for every row."""
    if not len(column):
        return memoryview(b"")
    nothing, end_mark = (pa.scalar(text, pa.large_string()) for text in ("", "\0"))
    ended = pc.binary_join_element_wise(column.cast(pa.large_string()), nothing, end_mark)
    offsets, content = ended.buffers()[1:]
    begin, end = (int(np.frombuffer(offsets, np.int64)[place]) for place in (0, len(column)))
    return memoryview(content)[begin : end - 1]


def file_sha256(path: Place) -> str:
    """SHA-256 of a file's bytes, remembered while its size and time stand.

    Raises:
        FileNotFoundError: it is gone.
        StorageError: the store that it lies in does not answer.
    """
    local = fetched(path)
    stat = local.stat()
    return _hash_of(local, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash_of(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(frame: pd.DataFrame) -> pa.Table:
    fields = []
    for name in frame.columns:
        if name == "unique_id":
            fields.append(pa.field(name, pa.string()))
        elif name == "ds":
            fields.append(pa.field(name, pa.timestamp("us")))
        else:
            fields.append(pa.field(name, pa.float64()))
    return pa.Table.from_pandas(
        frame, schema=pa.schema(fields), preserve_index=False
    ).replace_schema_metadata(None)
