"""Source files that the arrivals sensor has set aside, and what ingesting does about them.

Which files are bad is found out, and written to ``staging.uploads``, by ``arrivals``. Here is what it
means for those who read: docs/decisions/0014-files-that-are-set-aside.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.datasets.sources import RawFile, definition_hash
from ts_forecast.datasets.sql_rows import SqlRows
from ts_forecast.errors import SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tables.experiment import Experiment
from ts_forecast.tables.staging import Upload


@dataclass(frozen=True)
class Standing:
    """What is on record of a path.

    Attributes:
        contents: status of each content, by its SHA-256; only what was judged by the present
            definition of the source counts.
        newest: SHA-256 of the content that was judged last.
        mark: of the file when it was, as ``places.Found.mark``.
        reason: why the newest was rejected; empty if it was not.
        quarters: that the last accepted content bears on; empty if none was ever accepted.
    """

    contents: dict[str, str] = field(default_factory=dict)
    newest: str = ""
    mark: tuple[int, ...] = ()
    reason: str = ""
    quarters: tuple[Quarter, ...] = ()

    def knows(self, mark: tuple[int, ...]) -> bool:
        """Whether the file that bears this mark is judged."""
        return self.mark == mark and self.newest in self.contents


def standings(session: Session, pipeline: Pipeline) -> dict[str, Standing]:
    """What the sensor has found of each path of the pipeline, those that are gone included."""
    uploads = session.scalars(
        select(Upload)
        .join(Experiment, Experiment.experiment_id == Upload.experiment_id)
        .where(
            Experiment.experiment_name == pipeline.name,
            Experiment.deleted_at.is_(None),
            Upload.status.in_(["accepted", "rejected"]),
        )
        .order_by(Upload.finished_at, Upload.upload_id)
    )
    definition = definition_hash(pipeline, [])
    found: dict[str, Standing] = {}
    for upload in uploads:
        path, metadata = upload.file_path, upload.metadata_ or {}
        before = found.get(path, Standing())
        contents = {**before.contents}
        contents.pop(upload.file_hash or "", None)
        if metadata.get("definition") == definition:
            contents[upload.file_hash or ""] = upload.status
        is_good = upload.status == "accepted"
        found[path] = Standing(
            contents=contents,
            newest=upload.file_hash or "",
            mark=tuple(metadata.get("mark", ())),
            reason="" if is_good else upload.error_message or "no reason on record",
            quarters=tuple(Quarter.parse(key) for key in metadata.get("quarters", ()))
            if is_good
            else before.quarters,
        )
    return found


def without_set_aside(
    session: Session,
    files: Sequence[RawFile],
    pipeline: Pipeline,
    quarters: Sequence[Quarter],
    *,
    only_accepted: bool = False,
) -> tuple[list[RawFile], list[RawFile]]:
    """The files to read, and those that are left out.

    A rejected file is left out while its content stands. One that took the place of a good one holds
    the quarters of that one: without it they would lose rows that they had.

    Args:
        only_accepted: leave out new files that nobody has judged yet, too: they may be half-written.

    Raises:
        SourceError: a quarter is held, also, with ``only_accepted``, by a file that is being replaced; a
            static file is set aside; or nothing is left.
    """
    known = standings(session, pipeline)
    used, aside = [], []
    for file in files:
        standing = known.get(str(file.path), Standing())
        status = standing.contents.get(file.sha256)
        # A database shows no half-written rows.
        is_whole = not only_accepted or isinstance(file.path, SqlRows)
        if status == "accepted" or (status is None and is_whole):
            used.append(file)
            continue
        held = sorted({*standing.quarters} & {*quarters})
        if not file.is_static and not held:
            aside.append(file)
        elif status is None:
            raise SourceError(
                f"{file.path}: it is being replaced, and its new content was not judged yet.",
                remedy="Nothing is to be done: the pipeline's sensor asks again.",
            )
        else:
            where = f" that {', '.join(q.label for q in held)} rests on" if held else ""
            raise SourceError(
                f"{file.path} was set aside; it took the place of a file{where}: {standing.reason}",
                remedy="Correct the file.",
            )
    if not any(not file.is_static for file in used):
        raise SourceError(
            f"Pipeline {pipeline.name}: all of its {len(aside)} files were set aside.",
            remedy="`SELECT file_path, error_message FROM staging.uploads` says why.",
        )
    return used, aside
