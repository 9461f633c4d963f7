"""Datasets by quarter: ingesting sources into versions, and reading them back as a panel.

A quarter whose rows are unchanged keeps its version; a restated one gets the next, with the one that it
restates as its parent. Rows and files of a call become visible together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.readers import read_source, read_static, source_files
from ts_forecast.datasets.set_aside import without_set_aside
from ts_forecast.datasets.sources import RawFile, definition_hash, record_raw_files, survey
from ts_forecast.datasets.sql_rows import SourceItem
from ts_forecast.datasets.store import (
    StoredTable,
    load_frame,
    load_frames,
    processed_folder,
    store_frame,
)
from ts_forecast.datasets.validation import History, check_claim, examine, merge
from ts_forecast.db.engine import lock_in_transaction
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import DatasetError
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Place, exists, place
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.tables.dataset import Dataset

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetVersion:
    """The current version of a quarter.

    Attributes:
        changed: this call made it.
        report: counts of the validation.
    """

    dataset_id: int
    version: str
    file_hash: str
    content_hash: str
    path: Place
    rows: int
    series: int
    changed: bool
    report: dict[str, int]


def ingest_quarters(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarters: Sequence[Quarter],
    *,
    force: bool = False,
    only_available: bool = False,
    only_accepted: bool = False,
) -> dict[Quarter, DatasetVersion]:
    """Bring quarters up to date with the source files; commits once, at the end.

    The sources are read once for all quarters, and not at all where nothing has changed since the
    quarters were ingested. Bad input leaves neither row nor file. Files that the pipeline's sensor has
    set aside are left out while their content stands.

    Args:
        force: read the sources even if they are unchanged.
        only_available: leave out quarters without observations instead of refusing them.
        only_accepted: read no file that the pipeline's sensor has not judged yet.

    Raises:
        SourceError: a source file is wrong; names file, row and column. Or one that was set aside holds
            a quarter.
        StorageError: a store does not answer.
        DatasetError: a quarter has no observation.
    """
    wanted = sorted(set(quarters))

    def look(
        session: Session,
    ) -> tuple[list[RawFile], list[RawFile], str, dict[Quarter, Dataset] | None]:
        surveyed = survey(session, source_files(pipeline, settings), pipeline, settings)
        files, aside = without_set_aside(
            session, surveyed, pipeline, wanted, only_accepted=only_accepted
        )
        state = definition_hash(pipeline, files)
        return files, aside, state, _standing(session, pipeline, wanted, state)

    files, aside, state, standing = in_transaction(engine, look)
    for file in aside:
        _log.warning("%s was set aside: it is left out", file.path)
    if standing is not None and not force:
        return {quarter: _version(row, changed=False) for quarter, row in standing.items()}
    history = read_history([file.path for file in files if not file.is_static], pipeline)
    static = read_static(pipeline, settings)
    reports = examine(history, pipeline, wanted)
    available = [quarter for quarter in wanted if reports[quarter].observed]
    if not only_available and len(available) < len(wanted):
        _refuse_empty(history, pipeline, next(q for q in wanted if q not in available))
    drafts = {q: _store(settings, pipeline, history, static, q) for q in available}

    def record(session: Session) -> dict[Quarter, DatasetVersion]:
        lock_in_transaction(session, "datasets", pipeline.name)
        raw_ids = record_raw_files(session, files, pipeline)
        return {
            quarter: _record(
                session,
                pipeline,
                quarter,
                drafts[quarter],
                asdict(reports[quarter])
                | {"restated": history.restated, "outside": history.outside, "aside": len(aside)},
                files,
                raw_ids,
                state,
            )
            for quarter in available
        }

    return in_transaction(engine, record)


def datasets_are_current(
    session: Session, settings: Settings, pipeline: Pipeline, quarters: Sequence[Quarter]
) -> bool:
    """Whether ``ingest_quarters`` would find nothing to do; the sources are not parsed."""
    surveyed = survey(session, source_files(pipeline, settings), pipeline, settings)
    files, _ = without_set_aside(session, surveyed, pipeline, quarters)
    state = definition_hash(pipeline, files)
    return _standing(session, pipeline, quarters, state) is not None


def _standing(
    session: Session, pipeline: Pipeline, quarters: Sequence[Quarter], state: str
) -> dict[Quarter, Dataset] | None:
    """The quarters' versions if all were made from the sources as they are now, else None."""
    rows = {quarter: current_dataset(session, pipeline, quarter) for quarter in quarters}
    found = {q: row for q, row in rows.items() if row is not None and _is_current(row, state)}
    return found if len(found) == len(rows) else None


def read_history(paths: Sequence[SourceItem], pipeline: Pipeline) -> History:
    """The canonical rows of files, in the order of their names.

    Raises:
        SourceError: one of them is wrong; names file, row and column.
    """
    frames = []
    for path in paths:
        frame = read_source(path, pipeline)
        check_claim(path, frame, pipeline)
        frames.append(frame)
    return merge(frames, pipeline)


def quarter_frames(
    pipeline: Pipeline, history: History, static: pd.DataFrame | None, quarter: Quarter
) -> dict[str, pd.DataFrame]:
    """What is stored of a quarter: its rows as ``main``, and what stands beside them."""
    frame = history.frame
    inside = (frame["ds"] >= quarter.start) & (frame["ds"] < quarter.end)
    frames = {"main": frame[inside].reset_index(drop=True)}
    if pipeline.exogenous.future:
        first = pipeline.grid.first_from(pd.Timestamp(quarter.end))
        limit = pipeline.grid.timestamps(pd.Index([first + pipeline.horizon]).to_numpy())[0]
        ahead = (frame["ds"] >= quarter.end) & (frame["ds"] < limit)
        columns = ["unique_id", "ds", *pipeline.exogenous.future]
        frames["ahead"] = frame.loc[ahead, columns]
    if static is not None:
        frames["static"] = static.reset_index()
    return frames


def stored_name(quarter: Quarter, part: str) -> str:
    """Stem of the file that holds a part of a quarter, as ``quarter_frames`` names the parts."""
    return {"main": quarter.key, "ahead": f"{quarter.key}.ahead"}.get(part, part)


@dataclass(frozen=True)
class _Draft:
    main: StoredTable
    companions: dict[str, StoredTable]
    frame: pd.DataFrame


def _store(
    settings: Settings,
    pipeline: Pipeline,
    history: History,
    static: pd.DataFrame | None,
    quarter: Quarter,
) -> _Draft:
    folder = processed_folder(settings, pipeline)
    frames = quarter_frames(pipeline, history, static, quarter)
    stored = {
        part: store_frame(folder, stored_name(quarter, part), frame)
        for part, frame in frames.items()
    }
    return _Draft(stored.pop("main"), stored, frames["main"])


def _record(
    session: Session,
    pipeline: Pipeline,
    quarter: Quarter,
    draft: _Draft,
    report: dict[str, int],
    files: Sequence[RawFile],
    raw_ids: dict[str, int],
    state: str,
) -> DatasetVersion:
    current = current_dataset(session, pipeline, quarter)
    metadata: dict[str, Any] = {
        "content_hash": draft.main.content_hash,
        "source_state": state,
        "sources": [{"path": str(f.path), "sha256": f.sha256} for f in files],
        "report": report,
        "companions": {
            name: {"path": str(table.path), "sha256": table.file_hash, "rows": table.rows}
            for name, table in draft.companions.items()
        },
    }
    if (
        current is not None
        and (current.metadata_ or {}).get("content_hash") == draft.main.content_hash
    ):
        # The same observations: what stands beside them may still have moved.
        current.metadata_ = metadata
        current.file_path = str(draft.main.path)
        current.file_hash = draft.main.file_hash
        session.flush()
        return _version(current, changed=False)
    main_files = [file for file in files if not file.is_static]
    row = Dataset(
        dataset_name=dataset_name(pipeline, quarter),
        dataset_type="processed",
        file_path=str(draft.main.path),
        file_format="parquet",
        file_size_bytes=draft.main.size_bytes,
        file_hash=draft.main.file_hash,
        num_rows=draft.main.rows,
        num_columns=len(draft.frame.columns),
        num_time_series=int(draft.frame["unique_id"].nunique()),
        date_column="ds",
        target_column="y",
        frequency=pipeline.frequency,
        start_date=draft.frame["ds"].min().to_pydatetime(),
        end_date=draft.frame["ds"].max().to_pydatetime(),
        column_types={name: str(kind) for name, kind in draft.frame.dtypes.items()},
        schema_definition=pipeline.exogenous.model_dump(mode="json"),
        missing_values_count=report["missing"] + report["missing_exogenous"],
        version=_next_version(current),
        parent_dataset_id=current.dataset_id if current else raw_ids[str(main_files[-1].path)],
        quarter_start=quarter.start.date(),
        metadata_=metadata,
    )
    session.add(row)
    session.flush()
    return _version(row, changed=True)


def dataset_name(pipeline: Pipeline, quarter: Quarter) -> str:
    """Name of a quarter's rows in ``datasets``, all versions."""
    return f"{pipeline.name}/{quarter.label}"


def current_dataset(session: Session, pipeline: Pipeline, quarter: Quarter) -> Dataset | None:
    """The newest version of a quarter."""
    return current_datasets(session, pipeline, [quarter]).get(quarter)


def current_datasets(
    session: Session, pipeline: Pipeline, quarters: Iterable[Quarter]
) -> dict[Quarter, Dataset]:
    """The newest version of each quarter, in the quarters' order, those never ingested left out."""
    names = {dataset_name(pipeline, quarter): quarter for quarter in quarters}
    newest = session.scalars(
        select(Dataset)
        .ext(distinct_on(Dataset.dataset_name))
        .where(Dataset.dataset_name.in_(names), Dataset.dataset_type == "processed")
        .order_by(Dataset.dataset_name, Dataset.dataset_id.desc())
    )
    found = {row.dataset_name: row for row in newest}
    return {quarter: found[name] for name, quarter in names.items() if name in found}


def stored_parts(row: Dataset) -> dict[str, str]:
    """Names of the files of a version, by part: they tell one content from another."""
    companions = (row.metadata_ or {}).get("companions", {})
    return {
        "main": place(row.file_path).name,
        **{part: place(table["path"]).name for part, table in companions.items()},
    }


def stored_companions(session: Session, pipeline: Pipeline, quarter: Quarter) -> dict[str, str]:
    """``stored_parts`` of a quarter's current version, without its rows."""
    row = current_dataset(session, pipeline, quarter)
    parts = stored_parts(row) if row is not None else {}
    return {part: name for part, name in parts.items() if part != "main"}


def missing_quarters(
    session: Session, pipeline: Pipeline, quarters: Sequence[Quarter]
) -> list[Quarter]:
    """Those of the quarters that were never ingested."""
    found = current_datasets(session, pipeline, quarters)
    return [quarter for quarter in quarters if quarter not in found]


def load_panel(session: Session, pipeline: Pipeline, first: Quarter, last: Quarter) -> Panel:
    """The current versions of a range of quarters, with what is known ahead of its last one.

    Quarters before the first one that was ingested are absent, not wrong.

    Raises:
        DatasetError: no quarter of the range was ingested, one within it was not, or a file is damaged.
    """
    rows = current_datasets(session, pipeline, quarter_range(first, last))
    if not rows:
        raise DatasetError(
            f"Pipeline {pipeline.name}: no dataset from {first.label} to {last.label}.",
            remedy=f"Materialize {pipeline.name}/datasets for these quarters first.",
        )
    for quarter in quarter_range(next(iter(rows)), last):
        if quarter not in rows:
            raise DatasetError(
                f"Pipeline {pipeline.name}: {quarter.label} was never ingested, but quarters before "
                "it were.",
                remedy=f"Materialize {pipeline.name}/datasets for {quarter.key}.",
            )
    files = [(place(row.file_path), row.file_hash or "") for row in rows.values()]
    companions = (list(rows.values())[-1].metadata_ or {}).get("companions", {})
    if "ahead" in companions and companions["ahead"]["rows"]:
        ahead = companions["ahead"]
        files.append((place(ahead["path"]), ahead["sha256"]))
    static = None
    if "static" in companions:
        stored = companions["static"]
        static = load_frame(place(stored["path"]), stored["sha256"]).set_index("unique_id")
    panel = Panel.from_frame(load_frames(files), pipeline, static)
    versions = tuple((row.dataset_id, row.file_hash or "") for row in rows.values())
    return replace(panel, datasets=versions)


def _is_current(row: Dataset, state: str) -> bool:
    metadata = row.metadata_ or {}
    paths = [row.file_path, *(c["path"] for c in metadata.get("companions", {}).values())]
    return metadata.get("source_state") == state and all(exists(place(path)) for path in paths)


def _version(row: Dataset, *, changed: bool) -> DatasetVersion:
    metadata = row.metadata_ or {}
    return DatasetVersion(
        dataset_id=row.dataset_id,
        version=row.version or "1.0.0",
        file_hash=row.file_hash or "",
        content_hash=metadata.get("content_hash", ""),
        path=place(row.file_path),
        rows=row.num_rows or 0,
        series=row.num_time_series or 0,
        changed=changed,
        report=metadata.get("report", {}),
    )


def _next_version(current: Dataset | None) -> str:
    if current is None:
        return "1.0.0"
    return f"{int((current.version or '1').split('.')[0]) + 1}.0.0"


def _refuse_empty(history: History, pipeline: Pipeline, quarter: Quarter) -> None:
    seen = history.frame.loc[history.frame["y"].notna(), "ds"]
    raise DatasetError(
        f"Pipeline {pipeline.name}: the source has no observation in {quarter.label}; "
        f"it runs from {seen.min()} to {seen.max()}.",
        remedy="Materialize quarters that the source covers.",
    )
