"""What is on record of the source files: their hashes, and whether anything about them has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.datasets.readers import SourceFile
from ts_forecast.datasets.sql_rows import SourceItem, SqlRows
from ts_forecast.datasets.store import file_sha256
from ts_forecast.datasets.tabular import file_format
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Mark, matching
from ts_forecast.settings import Settings
from ts_forecast.tables.dataset import Dataset

# Raise it when reading or validating changes what is stored.
READER_VERSION = 1


@dataclass(frozen=True)
class RawFile:
    """A source file as it lies there now, or a query with its rows.

    Attributes:
        mark: as ``readers.SourceFile.mark``.
    """

    path: SourceItem
    sha256: str
    mark: Mark
    is_static: bool

    @property
    def stored_marks(self) -> dict[str, int]:
        """By which its row tells that it was not written since; a copy is another inode, no other file."""
        if isinstance(self.path, SqlRows):
            return {"rows": self.mark[0], "watermark": self.mark[2]}
        marks = {"size": self.mark[0], "mtime_ns": self.mark[1]}
        return marks if isinstance(self.path, Path) else marks | {"tag": self.mark[2]}


def survey(
    session: Session, found: Sequence[SourceFile], pipeline: Pipeline, settings: Settings
) -> list[RawFile]:
    """The source files with their hashes; one whose size and time stand is not read again.

    A query is read: its rows may have changed since they were polled, and are what will be used.

    Raises:
        StorageError: a store or database does not answer.
    """
    static = pipeline.source.static if pipeline.exogenous.static else None
    beside = matching(settings.data_dir, static.files) if static else []
    others = [SourceFile(file.place, file.mark) for file in beside]
    files = []
    for file in [*found, *others]:
        if isinstance(file.path, SqlRows):
            rows = file.path.snapshot
            files.append(RawFile(file.path, rows.sha256, rows.mark, is_static=False))
            continue
        raw = RawFile(file.path, "", file.mark, is_static=file in others)
        known = _latest(session, pipeline, file.path)
        is_same = known is not None and any(file.mark[1:]) and known.metadata_ == raw.stored_marks
        sha256 = known.file_hash if known is not None and is_same else None
        files.append(replace(raw, sha256=sha256 or file_sha256(file.path)))
    return files


def definition_hash(pipeline: Pipeline, files: Sequence[RawFile]) -> str:
    """Changes when anything that decides the datasets does: files, or how they are read."""
    definition = {
        "reader": READER_VERSION,
        "files": [[file.path.name, file.sha256, file.is_static] for file in files],
        "source": pipeline.source.model_dump(mode="json"),
        "exogenous": pipeline.exogenous.model_dump(mode="json"),
        "frequency": pipeline.frequency,
        "horizon": pipeline.horizon,
        "start": pipeline.start.isoformat(),
        "end": pipeline.end.isoformat() if pipeline.end else None,
        "missing": pipeline.missing,
    }
    text = json.dumps(definition, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def record_raw_files(
    session: Session, files: Sequence[RawFile], pipeline: Pipeline
) -> dict[str, int]:
    """The ``raw`` rows of the files, by path; a new row for a new content, its parent the last one."""
    ids = {}
    for file in files:
        known = _latest(session, pipeline, file.path)
        marks = file.stored_marks
        if known is not None and known.file_hash == file.sha256:
            if known.metadata_ != marks:
                known.metadata_ = marks
            ids[str(file.path)] = known.dataset_id
            continue
        row = Dataset(
            dataset_name=_name(pipeline, file.path),
            dataset_type="raw",
            file_path=str(file.path),
            file_format=format_of(file.path, pipeline),
            file_size_bytes=size_of(file.path, file.mark),
            file_hash=file.sha256,
            date_column=pipeline.source.time_column,
            target_column=pipeline.source.target_column,
            frequency=pipeline.frequency,
            parent_dataset_id=known.dataset_id if known is not None else None,
            metadata_=marks,
        )
        session.add(row)
        session.flush()
        ids[str(file.path)] = row.dataset_id
    return ids


def format_of(path: SourceItem, pipeline: Pipeline) -> str:
    """As tables name it.

    Raises:
        SourceError: the ending of the file's name says nothing.
    """
    return "sql" if isinstance(path, SqlRows) else file_format(path, pipeline.source.format)


def size_of(path: SourceItem, mark: Mark) -> int | None:
    """Bytes of a file; a query has none."""
    return None if isinstance(path, SqlRows) else mark[0]


def _latest(session: Session, pipeline: Pipeline, path: SourceItem) -> Dataset | None:
    return session.scalar(
        select(Dataset)
        .where(
            Dataset.dataset_name == _name(pipeline, path),
            Dataset.dataset_type == "raw",
            Dataset.file_path == str(path),
        )
        .order_by(Dataset.dataset_id.desc())
        .limit(1)
    )


def _name(pipeline: Pipeline, path: SourceItem) -> str:
    return f"{pipeline.name}/raw/{path.name}"[:255]
