"""Judging files that arrived, and ``staging.uploads`` and ``staging.rejected``, where it is on record.

What a record means for those who read the source is ``datasets.set_aside``.
"""

from __future__ import annotations

import re

import pandas as pd
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from ts_forecast.arrivals.watching import Seen
from ts_forecast.datasets.readers import read_source, read_static
from ts_forecast.datasets.sources import definition_hash, format_of, size_of
from ts_forecast.datasets.sql_rows import SourceItem
from ts_forecast.datasets.validation import check_claim
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import SourceError, TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.tables.staging import Rejected, Upload
from ts_forecast.tracking.experiments import ensure_experiment

_ROW = re.compile(r", rows? (\d+)")
_COLUMN = re.compile(r"column '([^']+)'")


def judge(settings: Settings, pipeline: Pipeline, file: Seen) -> tuple[Quarter, ...]:
    """The quarters that a file bears on, if it is good.

    Raises:
        SourceError: it is not; says why.
        StorageError: it cannot be read now.
    """
    if file.is_static:
        read_static(pipeline, settings)
        return ()
    frame = read_source(file.path, pipeline)
    check_claim(file.path, frame, pipeline)
    return _touched(pipeline, frame)


def record(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    file: Seen,
    sha256: str,
    verdict: tuple[Quarter, ...] | TsForecastError,
) -> None:
    """Put a file and what became of it on record."""
    problem = verdict if isinstance(verdict, TsForecastError) else None
    quarters = [] if isinstance(verdict, TsForecastError) else [q.key for q in verdict]

    def store(session: Session) -> None:
        upload = Upload(
            experiment_id=ensure_experiment(session, pipeline),
            file_path=str(file.path),
            file_format=_format(file.path, pipeline),
            file_size_bytes=size_of(file.path, file.mark),
            file_hash=sha256,
            status="accepted" if problem is None else "rejected",
            error_message=None if problem is None else " ".join(str(problem).split()),
            uploaded_by=settings.user,
            finished_at=func.clock_timestamp(),
            metadata_={
                "mark": list(file.mark),
                "quarters": quarters,
                "definition": definition_hash(pipeline, []),
            },
        )
        session.add(upload)
        session.flush()
        if problem is not None:
            row, column = _ROW.search(problem.problem), _COLUMN.search(problem.problem)
            session.add(
                Rejected(
                    upload_id=upload.upload_id,
                    row_number=int(row[1]) if row else None,
                    column_name=column[1][:255] if column else None,
                    reason=" ".join(problem.problem.split()),
                )
            )

    in_transaction(engine, store)


def record_touch(engine: Engine, pipeline: Pipeline, file: Seen) -> None:
    """Note that a file was written again with the content that it had."""

    def store(session: Session) -> None:
        upload = session.scalars(
            select(Upload)
            .where(
                Upload.experiment_id == ensure_experiment(session, pipeline),
                Upload.file_path == str(file.path),
                Upload.finished_at.is_not(None),
            )
            .order_by(Upload.finished_at.desc(), Upload.upload_id.desc())
            .limit(1)
        ).one()
        upload.metadata_ = {**(upload.metadata_ or {}), "mark": list(file.mark)}

    in_transaction(engine, store)


def _touched(pipeline: Pipeline, frame: pd.DataFrame) -> tuple[Quarter, ...]:
    """The quarters of its rows, and those in whose last horizon its rows are known ahead."""
    own = {Quarter.of(day) for day in frame["ds"].dt.to_period("Q").dt.start_time.unique()}
    if not pipeline.exogenous.future:
        return tuple(sorted(own))
    touched = set(own)
    for quarter in own:
        first = pipeline.grid.first_from(pd.Timestamp(quarter.start)) - pipeline.horizon
        reached = pipeline.grid.timestamps(pd.Index([first]).to_numpy())[0]
        touched |= set(quarter_range(Quarter.of(reached), quarter))
    return tuple(sorted(touched))


def _format(path: SourceItem, pipeline: Pipeline) -> str | None:
    try:
        return format_of(path, pipeline)
    except SourceError:
        return None
