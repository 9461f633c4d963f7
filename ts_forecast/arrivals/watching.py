"""Watching files until they are written: which lie there, and which of them stand still.

Costs a stat a file; no content is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ts_forecast.datasets.readers import matching_files
from ts_forecast.pipeline import Pipeline
from ts_forecast.settings import Settings

Mark = tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """A source file as it lies there.

    Attributes:
        mark: size, modification time in nanoseconds, inode.
    """

    path: Path
    mark: Mark
    is_static: bool


def present_files(pipeline: Pipeline, settings: Settings) -> list[Seen]:
    """The files of the pipeline's patterns in the order in which they are read, static ones last.

    A pattern without a file is no error: it may be the first that is waited for.
    """
    source = pipeline.source
    main = {path for one in source.patterns for path in matching_files(settings.data_dir, one)}
    static = source.static if pipeline.exogenous.static else None
    beside = matching_files(settings.data_dir, static.files) if static is not None else []
    ordered = sorted(main, key=lambda path: (path.name, str(path)))
    return [
        Seen(path, mark, is_static)
        for paths, is_static in ((ordered, False), (sorted(beside), True))
        for path in paths
        if (mark := mark_of(path)) is not None
    ]


def mark_of(path: Path) -> Mark | None:
    """What changes whenever a file is written; None if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def is_settled(
    file: Seen, before: Mapping[Path, Mark], *, now: float, settle_seconds: float
) -> bool:
    """Whether it was the same at the last look, and was last written so many seconds ago.

    A modification time in the future says nothing; that it did not change does.
    """
    age = now - file.mark[1] / 1e9
    return before.get(file.path) == file.mark and (age >= settle_seconds or age < 0)
