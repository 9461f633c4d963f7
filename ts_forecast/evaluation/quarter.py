"""Scoring the slice of a quarter and storing what came of it.

One run a slice version: metrics and summaries as rows, the scores of every series as a Parquet
file. What a score is, is ``scoring`` and ``summary``; reading results back is ``leaderboard``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.orm import Session

from ts_forecast.datasets.quarter import current_datasets, load_panel
from ts_forecast.db.engine import exclusive
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import DatabaseError, EvaluationError
from ts_forecast.evaluation.scoring import ALL, metric_names, score_models, seasonal_scales
from ts_forecast.evaluation.scoring import horizon_buckets as buckets_of
from ts_forecast.evaluation.summary import summarize
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Place, place
from ts_forecast.predictions.slice import read_slice, slice_version
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifact_content import StoredArtifact
from ts_forecast.registry.artifacts import ArtifactStore, record_artifact
from ts_forecast.settings import Settings
from ts_forecast.tables.evaluation import MetricSummary
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import fingerprint, library_versions
from ts_forecast.tracking.measurements import DatasetType, MetricRow, log_metrics
from ts_forecast.tracking.runs import (
    OpenRun,
    RunKey,
    find_completed,
    supersede,
    tracked_run,
)

CODE_VERSION = 1
"""Part of the fingerprint: raise it when the same slice would get other scores."""

_ROWS_AT_ONCE = 2_000_000
ARTIFACT_NAME = "series_scores"
_DATASET_TYPE: DatasetType = "test"


@dataclass(frozen=True)
class ScoreOutcome:
    """What became of a quarter's scores.

    Attributes:
        run_id: the standing run; None if the slice holds no actual value yet.
        metrics, summaries: rows that the run wrote.
        series: with at least one actual value.
        path: the scores of every series.
        note: for people, e.g. that there is nothing to score.
    """

    run_id: int | None
    reused: bool
    metrics: int
    summaries: int
    series: int
    path: Place | None
    note: str


@dataclass(frozen=True)
class _Slice:
    """The version of a slice: what it holds and which models made it."""

    content_hash: str
    run_id: int
    rows: int
    models: dict[int, str]


def score_quarter(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarter: Quarter,
    *,
    force: bool = False,
) -> ScoreOutcome:
    """Score the forecasts of a quarter; spans several transactions.

    The same slice is scored once; a republished one is scored anew, and its run takes the place of
    the older ones, so that readers see one summary for each (model, quarter, metric, bucket). A
    quarter without actual values is no failure: the outcome says so, and no older run stands.

    Raises:
        EvaluationError: the quarter has no slice, or the slice does not fit the pipeline file.
        DatabaseError: the slice was republished while it was scored; try again.
    """
    experiment_id = in_transaction(engine, lambda session: ensure_experiment(session, pipeline))

    def look(session: Session) -> tuple[_Slice, str] | None:
        published = _published(session, experiment_id, pipeline, quarter)
        if not _has_actuals(session, experiment_id, quarter):
            supersede(session, experiment_id, "evaluate", quarter, keep=None)
            return None
        return published, _fingerprint(session, pipeline, quarter, published)

    # Two versions of a slice have two fingerprints; their runs must not end in any order.
    with exclusive(engine, "score", str(experiment_id), quarter.key):
        found = in_transaction(engine, look)
        if found is None:
            return ScoreOutcome(
                None, False, 0, 0, 0, None, f"{quarter.label}: no actual value yet."
            )
        published, mark = found
        key = RunKey(
            experiment_id,
            "evaluate",
            f"{pipeline.name}/{quarter.label}/evaluate",
            mark,
            quarter,
            parent_run_id=published.run_id,
        )
        with tracked_run(engine, key, force=force) as run:
            if not run.reused:
                scores = _score(engine, pipeline, quarter, experiment_id, published)
                _store(engine, settings, pipeline, quarter, published, run, scores)
            return _outcome(engine, run, quarter)


def scores_are_current(session: Session, pipeline: Pipeline, quarter: Quarter) -> bool:
    """Whether ``score_quarter`` would find its work on record.

    Raises:
        EvaluationError: the quarter has no slice.
    """
    experiment_id = ensure_experiment(session, pipeline)
    if not _has_actuals(session, experiment_id, quarter):
        return True
    published = _published(session, experiment_id, pipeline, quarter)
    mark = _fingerprint(session, pipeline, quarter, published)
    return find_completed(session, experiment_id, mark) is not None


def _published(
    session: Session, experiment_id: int, pipeline: Pipeline, quarter: Quarter
) -> _Slice:
    version = slice_version(session, experiment_id, quarter)
    if version is None:
        raise EvaluationError(
            f"Pipeline {pipeline.name} has no forecasts of {quarter.label}.",
            remedy=f"Materialize {pipeline.name}/predictions for {quarter.key} first.",
        )
    # One index probe for each model of the quarter; DISTINCT would read the whole slice.
    candidates = session.execute(
        select(Model.model_id, Model.model_name)
        .join(Run, Run.run_id == Model.run_id)
        .where(Run.experiment_id == experiment_id, Model.quarter_start == quarter.start.date())
        .order_by(Model.model_id)
    ).all()
    models = {
        model_id: name
        for model_id, name in candidates
        if session.scalar(
            text(
                "SELECT EXISTS (SELECT FROM predictions WHERE experiment_id = :experiment_id "
                "AND model_id = :model_id AND prediction_date >= :first AND prediction_date < :end)"
            ),
            _bounds(experiment_id, quarter) | {"model_id": model_id},
        )
    }
    return _Slice(version.content_hash, version.run_id, version.rows, models)


def _has_actuals(session: Session, experiment_id: int, quarter: Quarter) -> bool:
    return bool(
        session.scalar(
            text(
                "SELECT EXISTS (SELECT FROM predictions WHERE experiment_id = :experiment_id AND "
                "prediction_date >= :first AND prediction_date < :end AND actual_value IS NOT NULL)"
            ),
            _bounds(experiment_id, quarter),
        )
    )


def _bounds(experiment_id: int, quarter: Quarter) -> dict[str, object]:
    return {"experiment_id": experiment_id, "first": quarter.start, "end": quarter.end}


def _fingerprint(session: Session, pipeline: Pipeline, quarter: Quarter, published: _Slice) -> str:
    """Of everything that decides the scores, the history behind MASE's scale included."""
    window = pipeline.window(quarter)
    found = current_datasets(session, pipeline, window)
    history = [found[part].file_hash if part in found else None for part in window]
    baseline = pipeline.baseline_model
    return fingerprint(
        {
            "kind": "evaluate",
            "code": CODE_VERSION,
            "slice": published.content_hash,
            "history": history,
            "metrics": metric_names(pipeline),
            "quantiles": pipeline.quantiles,
            "horizon": pipeline.horizon,
            "season": pipeline.season,
            "baseline": baseline.name if baseline is not None else None,
            "libraries": library_versions("utilsforecast"),
        }
    )


def _score(
    engine: Engine,
    pipeline: Pipeline,
    quarter: Quarter,
    experiment_id: int,
    published: _Slice,
) -> pd.DataFrame:
    """Scores of all models: ``model``, then the columns of ``score_models``."""
    scales = _scales(engine, pipeline, quarter)
    parts = []
    # As many models at a time as the memory surely holds: a slice may be larger than it.
    per_model = published.rows // max(len(published.models), 1)
    at_once = max(_ROWS_AT_ONCE // max(per_model, 1), 1)
    ids = list(published.models)
    for begin in range(0, len(ids), at_once):
        some = ids[begin : begin + at_once]
        rows = read_slice(engine, experiment_id=experiment_id, quarter=quarter, model_ids=some)
        parts.append(score_models(rows, pipeline, scales))
        parts[-1].insert(0, "model", parts[-1]["model_id"].map(published.models))
    now = in_transaction(
        engine,
        lambda session: _published(session, experiment_id, pipeline, quarter),
        read_only=True,
    )
    if now.content_hash != published.content_hash:
        raise DatabaseError(
            f"The slice of {pipeline.name}, {quarter.label} was republished while it was scored.",
            remedy=f"Materialize {pipeline.name}/metric_summaries for {quarter.key} again.",
        )
    return pd.concat(parts, ignore_index=True)


def _scales(engine: Engine, pipeline: Pipeline, quarter: Quarter) -> pd.DataFrame | None:
    """Scales from the observations that the quarter's model was fitted on, and no later ones."""
    window = pipeline.window(quarter)
    if not window or not {"mase", "rmsse"} & set(pipeline.metrics):
        return None
    panel = in_transaction(
        engine,
        lambda session: load_panel(session, pipeline, window[0], window[-1]),
        read_only=True,
    )
    return seasonal_scales(panel.until(pipeline.slice_plan(quarter).fit_until), pipeline.season)


def _store(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarter: Quarter,
    published: _Slice,
    run: OpenRun,
    scores: pd.DataFrame,
) -> None:
    baseline = pipeline.baseline_model
    summaries = summarize(scores, metric_names(pipeline), baseline.name if baseline else None)
    model_ids = {name: model_id for model_id, name in published.models.items()}
    stored = _write_scores(settings, pipeline, quarter, run, scores)

    def record(session: Session) -> None:
        rows = _metric_rows(summaries, model_ids, pipeline, quarter)
        written = log_metrics(session, run.run_id, rows)
        session.execute(
            insert(MetricSummary), _summary_rows(summaries, model_ids, run.run_id, quarter)
        )
        record_artifact(session, run.run_id, ARTIFACT_NAME, "report", stored)
        session.execute(
            update(Model)
            .where(Model.model_id.in_(published.models), Model.status == "trained")
            .values(status="evaluated")
        )
        run.complete(
            session,
            {
                "slice": published.content_hash,
                "metrics": written,
                "summaries": len(summaries),
                "series": int(scores["unique_id"].nunique()),
                "path": str(stored.path),
            },
        )
        supersede(session, run.key.experiment_id, "evaluate", quarter, keep=run.run_id)

    in_transaction(engine, record)


def _write_scores(
    settings: Settings, pipeline: Pipeline, quarter: Quarter, run: OpenRun, scores: pd.DataFrame
) -> StoredArtifact:
    name = f"{ARTIFACT_NAME}.{run.key.fingerprint[:16]}.parquet"
    store = ArtifactStore(settings, root=settings.output_dir)
    return store.write_file(
        Path("reports") / pipeline.name / quarter.key / name,
        lambda path: scores.to_parquet(path, index=False),
    )


def _metric_rows(
    summaries: pd.DataFrame, model_ids: dict[str, int], pipeline: Pipeline, quarter: Quarter
) -> list[MetricRow]:
    """The mean over series as one number; its step is the bucket's last step ahead, 0 for all."""
    steps = {ALL: 0} | {bucket.label: bucket.last for bucket in buckets_of(pipeline.horizon)}
    return [
        MetricRow(
            name=row["metric"],
            value=float(row["mean"]),
            step=steps[row["horizon_bucket"]],
            dataset_type=_DATASET_TYPE,
            context=f"{quarter.label}/{row['horizon_bucket']}",
            model_id=model_ids[row["model"]],
        )
        for row in summaries.to_dict(orient="records")
    ]


def _summary_rows(
    summaries: pd.DataFrame, model_ids: dict[str, int], run_id: int, quarter: Quarter
) -> list[dict[str, object]]:
    return [
        {
            "run_id": run_id,
            "model_id": model_ids[row["model"]],
            "metric_name": row["metric"],
            "dataset_type": _DATASET_TYPE,
            "horizon_bucket": row["horizon_bucket"],
            "quarter_start": quarter.start.date(),
            "min_value": row["min"],
            "q1_value": row["q1"],
            "median_value": row["median"],
            "mean_value": row["mean"],
            "q3_value": row["q3"],
            "max_value": row["max"],
            "std_value": _or_null(row["std"]),
            "skill": _or_null(row["skill"]),
            "sample_count": row["series"],
        }
        for row in summaries.to_dict(orient="records")
    ]


def _or_null(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _outcome(engine: Engine, run: OpenRun, quarter: Quarter) -> ScoreOutcome:
    recorded = in_transaction(
        engine, lambda session: session.get_one(Run, run.run_id).metadata_ or {}, read_only=True
    )
    return ScoreOutcome(
        run_id=run.run_id,
        reused=run.reused,
        metrics=recorded["metrics"],
        summaries=recorded["summaries"],
        series=recorded["series"],
        path=place(recorded["path"]),
        note=f"{quarter.label}: {recorded['series']} series scored.",
    )
