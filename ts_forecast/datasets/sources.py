"""What is on record of the source files: their hashes, and whether anything about them has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.datasets.readers import matching_files
from ts_forecast.datasets.store import file_sha256
from ts_forecast.datasets.tabular import file_format
from ts_forecast.pipeline import Pipeline
from ts_forecast.settings import Settings
from ts_forecast.tables.dataset import Dataset

# Raise it when reading or validating changes what is stored.
READER_VERSION = 1


@dataclass(frozen=True)
class RawFile:
    """A source file as it lies there now."""

    path: Path
    sha256: str
    size_bytes: int
    mtime_ns: int
    is_static: bool


def survey(
    session: Session, paths: Sequence[Path], pipeline: Pipeline, settings: Settings
) -> list[RawFile]:
    """The source files with their hashes; one whose size and time stand is not read again."""
    static = pipeline.source.static if pipeline.exogenous.static else None
    others = matching_files(settings.data_dir, static.files) if static else []
    files = []
    for path in [*paths, *others]:
        stat = path.stat()
        known = _latest(session, pipeline, path)
        marks = (known.metadata_ or {}) if known is not None else {}
        is_same = marks.get("size") == stat.st_size and marks.get("mtime_ns") == stat.st_mtime_ns
        sha256 = known.file_hash if known is not None and is_same else None
        files.append(
            RawFile(
                path=path,
                sha256=sha256 or file_sha256(path),
                size_bytes=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                is_static=path in others,
            )
        )
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
) -> dict[Path, int]:
    """The ``raw`` rows of the files, by path; a new row for a new content, its parent the last one."""
    ids = {}
    for file in files:
        known = _latest(session, pipeline, file.path)
        marks = {"size": file.size_bytes, "mtime_ns": file.mtime_ns}
        if known is not None and known.file_hash == file.sha256:
            if known.metadata_ != marks:
                known.metadata_ = marks
            ids[file.path] = known.dataset_id
            continue
        row = Dataset(
            dataset_name=_name(pipeline, file.path),
            dataset_type="raw",
            file_path=str(file.path),
            file_format=file_format(file.path, pipeline.source.format),
            file_size_bytes=file.size_bytes,
            file_hash=file.sha256,
            date_column=pipeline.source.time_column,
            target_column=pipeline.source.target_column,
            frequency=pipeline.frequency,
            parent_dataset_id=known.dataset_id if known is not None else None,
            metadata_=marks,
        )
        session.add(row)
        session.flush()
        ids[file.path] = row.dataset_id
    return ids


def _latest(session: Session, pipeline: Pipeline, path: Path) -> Dataset | None:
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


def _name(pipeline: Pipeline, path: Path) -> str:
    return f"{pipeline.name}/raw/{path.name}"[:255]
