"""Which quarters need which work: datasets that differ from the source, forecasts older than their data.

Compares what is on record; reads no file. A quarter is forecast once all datasets that it rests on are
what the source says, and its champion is chosen once the quarters that count for it are scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.datasets.quarter import dataset_name, stored_parts
from ts_forecast.errors import EvaluationError
from ts_forecast.evaluation.champion_run import due_choice
from ts_forecast.evaluation.quarter import scores_are_current
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.tables.dataset import Dataset, DatasetFeature
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.training.quarter import trained_models

_DATASETS = "its datasets"


@dataclass(frozen=True)
class Request:
    """Work for one run.

    Attributes:
        key: the same for the same work from the same state; another once either has changed.
        quarters: consecutive.
        assets: names under the pipeline, e.g. ``trained_models/NHITS``.
    """

    key: str
    quarters: tuple[Quarter, ...]
    assets: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        waiting: one line for each thing that cannot be done, and why.
    """

    requests: tuple[Request, ...]
    waiting: tuple[str, ...]


def make_plan(
    session: Session,
    pipeline: Pipeline,
    parts: Mapping[Quarter, Mapping[str, str]],
    held: Collection[Quarter],
    *,
    is_known: bool,
) -> Plan:
    """What the source, as it is, calls for.

    Args:
        parts: ``Contents.parts`` of the files that may be read.
        held: quarters that must stay as they are.
        is_known: whether ``parts`` is the whole source; if not, no dataset is requested.
    """
    rows = current_datasets(session, pipeline)
    rule, experiment = pipeline.champion, ensure_experiment(session, pipeline)
    waiting = []
    changed: list[Quarter] = []
    if is_known:
        changed = [
            quarter
            for quarter, wanted in sorted(parts.items())
            if quarter not in held
            and (quarter not in rows or stored_parts(rows[quarter]) != wanted)
        ]
        for quarter in sorted(set(rows) - set(parts) - set(held)):
            waiting.append(
                f"{quarter.label} is on record and has no observation in the source any more; it stays "
                "as it is"
            )
    requests = [
        Request(
            key=_key(
                "datasets",
                [[q.key, parts[q], rows[q].dataset_id if q in rows else None] for q in group],
            ),
            quarters=tuple(group),
            assets=("datasets", "dataset_features"),
        )
        for group in consecutive(changed)
    ]
    requests += _profile_requests(session, rows, changed)
    # Quarters whose scores are not what they will be.
    unsettled = set(changed)
    undecided: dict[Quarter, str] = {}
    for quarter in sorted(rows):
        window = pipeline.window(quarter)
        based_on = [part for part in window if part in rows]
        if not based_on:
            continue
        obstacle = _obstacle(quarter, {*window, quarter} & {*changed}, based_on[0], rows)
        if obstacle:
            waiting.append(f"the forecasts of {quarter.label} wait for {obstacle}")
            # For observations it may wait for ever; what comes after it does not.
            unsettled |= {quarter} if obstacle == _DATASETS else set()
            continue
        can_choose = not unsettled & {quarter.shift(-n - 1) for n in range(rule.quarters)}
        models = trained_models(session, pipeline, experiment, quarter)
        request = _forecast_request(session, pipeline, quarter, rows, models, can_choose=can_choose)
        if request is not None:
            requests.append(request)
            unsettled.add(quarter)
        elif can_choose and (mark := due_choice(session, pipeline, quarter, models)):
            undecided[quarter] = mark
    requests += [
        Request(_key("champion", [undecided[q] for q in group]), tuple(group), ("champion",))
        for group in consecutive(undecided)
    ]
    return Plan(tuple(requests), tuple(waiting))


def _obstacle(
    quarter: Quarter,
    changed: Collection[Quarter],
    first: Quarter,
    rows: Collection[Quarter],
) -> str:
    """What a quarter cannot be forecast without, in words; empty if it can be."""
    if changed:
        return _DATASETS
    holes = [part.label for part in quarter_range(first, quarter) if part not in rows]
    return f"observations in {', '.join(holes)}" if holes else ""


def _forecast_request(
    session: Session,
    pipeline: Pipeline,
    quarter: Quarter,
    rows: Mapping[Quarter, Dataset],
    models: Mapping[str, Model | None],
    *,
    can_choose: bool,
) -> Request | None:
    """Models, forecasts and scores, as far as they are due.

    Args:
        can_choose: whether the scores that a champion is chosen by are there.
    """
    experiment = ensure_experiment(session, pipeline)
    window = [rows[part] for part in pipeline.window(quarter) if part in rows]
    own = rows[quarter]
    due = [
        name
        for name, model in models.items()
        if model is None
        or (pipeline.retrain == "on_restated_data" and not _rests_on(model.metadata_, window))
    ]
    run = standing_forecast(session, experiment, quarter)
    made_of = (run.metadata_ or {}) if run is not None else {}
    is_current = run is not None and _rests_on(made_of, [*window, own])
    beside = {part: name for part, name in stored_parts(own).items() if part != "main"}
    if made_of.get("companions", beside) != beside:
        is_current = False
    if is_current and not due:
        return _scores_request(session, pipeline, quarter, run)
    state = {
        "quarter": quarter.key,
        "datasets": [row.dataset_id for row in (*window, own)],
        "companions": beside,
        "models": [[name, model and model.model_id] for name, model in models.items()],
        "forecast": run.run_id if run is not None else None,
    }
    assets = [*(f"trained_models/{name}" for name in due), "predictions", "metric_summaries"]
    if can_choose:
        assets.append("champion")
    return Request(_key("forecasts", state), (quarter,), tuple(assets))


def _profile_requests(
    session: Session, rows: Mapping[Quarter, Dataset], changed: Collection[Quarter]
) -> list[Request]:
    """Of datasets that are as they should be and have no profile.

    They were ingested on the way to a model, or by a run that was lost after them.
    """
    ids = {row.dataset_id for quarter, row in rows.items() if quarter not in changed}
    profiled = set(
        session.scalars(
            select(DatasetFeature.dataset_id).where(DatasetFeature.dataset_id.in_(ids)).distinct()
        )
    )
    bare = [quarter for quarter, row in rows.items() if row.dataset_id in ids - profiled]
    return [
        Request(
            key=_key("features", [rows[quarter].dataset_id for quarter in group]),
            quarters=tuple(group),
            assets=("dataset_features",),
        )
        for group in consecutive(bare)
    ]


def _scores_request(
    session: Session, pipeline: Pipeline, quarter: Quarter, run: Run | None
) -> Request | None:
    """Of a slice that was published by a run that was lost before it scored it."""
    try:
        is_scored = scores_are_current(session, pipeline, quarter)
    except EvaluationError:
        # The file no longer has a model of the slice: only new forecasts would mend it.
        is_scored = True
    if is_scored or run is None:
        return None
    return Request(_key("scores", [quarter.key, run.run_id]), (quarter,), ("metric_summaries",))


def current_datasets(session: Session, pipeline: Pipeline) -> dict[Quarter, Dataset]:
    """The newest version of every quarter that was ever ingested."""
    rows = session.scalars(
        select(Dataset)
        .where(
            Dataset.dataset_name.startswith(f"{pipeline.name}/", autoescape=True),
            Dataset.dataset_type == "processed",
            Dataset.quarter_start.is_not(None),
        )
        .order_by(Dataset.dataset_id)
    )
    found = {Quarter.of(row.quarter_start): row for row in rows if row.quarter_start is not None}
    return {q: row for q, row in found.items() if row.dataset_name == dataset_name(pipeline, q)}


def standing_forecast(session: Session, experiment: int, quarter: Quarter) -> Run | None:
    """The run whose slice readers see."""
    return session.scalar(
        select(Run)
        .where(
            Run.experiment_id == experiment,
            Run.quarter_start == quarter.start.date(),
            Run.tags["kind"].astext == "predict",
            Run.status == "completed",
            Run.deleted_at.is_(None),
        )
        .order_by(Run.end_time.desc(), Run.run_id.desc())
        .limit(1)
    )


def consecutive(quarters: Iterable[Quarter]) -> list[list[Quarter]]:
    """The quarters in groups without a gap, oldest first.

    >>> [[q.label for q in g] for g in consecutive([Quarter(2024, 1), Quarter(2024, 3)])]
    [['2024-Q1'], ['2024-Q3']]
    """
    groups: list[list[Quarter]] = []
    for quarter in sorted(quarters):
        if groups and groups[-1][-1].shift(1) == quarter:
            groups[-1].append(quarter)
        else:
            groups.append([quarter])
    return groups


def _rests_on(metadata: Mapping[str, Any] | None, rows: Iterable[Dataset]) -> bool:
    """Whether something was made of exactly these contents."""
    used = [entry["file_hash"] for entry in (metadata or {}).get("datasets", ())]
    return used == [row.file_hash for row in rows]


def _key(kind: str, state: object) -> str:
    text = json.dumps(state, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
