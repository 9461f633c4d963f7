"""Watching a source until it is written: which files lie there, and which of them stand still.

Costs a stat a file, a listing a folder of a store, a poll of a query's watermark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ts_forecast.datasets.readers import in_order
from ts_forecast.datasets.sql_rows import SourceItem, SqlRows, sql_rows
from ts_forecast.datasets.store import file_sha256
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Mark, mark_of, matching
from ts_forecast.settings import Settings


@dataclass(frozen=True)
class Seen:
    """A source file as it lies there, or a query.

    Attributes:
        mark: as ``datasets.readers.SourceFile.mark``.
    """

    path: SourceItem
    mark: Mark
    is_static: bool


def present_files(pipeline: Pipeline, settings: Settings) -> list[Seen]:
    """The files of the pipeline's patterns in the order in which they are read, static ones last.

    A pattern without a file is no error: it may be the first that is waited for.

    Raises:
        StorageError: a store or database does not answer.
    """
    source = pipeline.source
    rows = sql_rows(pipeline, settings)
    polled = rows.poll() if rows is not None else (0,)
    queries = [Seen(rows, polled, False)] if rows is not None and polled[0] else []
    found = {f.place: f for one in source.patterns for f in matching(settings.data_dir, one)}
    static = source.static if pipeline.exogenous.static else None
    beside = matching(settings.data_dir, static.files) if static is not None else []
    return queries + [
        Seen(file.place, file.mark, is_static)
        for files, is_static in ((found.values(), False), (beside, True))
        for file in in_order(files)
    ]


def is_settled(
    file: Seen, before: Mapping[str, Mark], *, now: float, settle_seconds: float
) -> bool:
    """Whether it was the same at the last look, and was last written so many seconds ago.

    A modification time in the future says nothing; that it did not change does. A database shows no
    half-written rows.
    """
    if isinstance(file.path, SqlRows):
        return True
    age = now - file.mark[1] / 1e9
    return before.get(str(file.path)) == file.mark and (age >= settle_seconds or age < 0)


def pinned(file: Seen) -> tuple[Seen, str]:
    """What is about to be judged, and its SHA-256; a query's rows are read, and bear their own mark.

    Raises:
        FileNotFoundError: the file is gone.
        StorageError: a store or database does not answer.
    """
    if isinstance(file.path, SqlRows):
        rows = file.path.snapshot
        return replace(file, mark=rows.mark), rows.sha256
    return file, file_sha256(file.path)


def stands_still(file: Seen) -> bool:
    """Whether it is still what it was when it was seen; rows that were read cannot change any more."""
    return isinstance(file.path, SqlRows) or mark_of(file.path) == file.mark
