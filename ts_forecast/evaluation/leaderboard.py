"""Results read back: models compared over quarters, and the series that are forecast worst.

Only standing results are read; what a later run superseded stays in the tables and out of here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from ts_forecast.errors import EvaluationError
from ts_forecast.evaluation.quarter import ARTIFACT_NAME
from ts_forecast.evaluation.scoring import ALL
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import verify_artifact
from ts_forecast.tables.evaluation import MetricSummary
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.registry import Artifact
from ts_forecast.tables.training import Model
from ts_forecast.tracking.runs import current_run

_DISTRIBUTION = ["min", "q1", "median", "mean", "q3", "max", "std", "series", "skill"]


def leaderboard(
    session: Session,
    experiment_id: int,
    quarters: Sequence[Quarter] | None = None,
    metric: str = "mae",
    horizon_bucket: str = ALL,
) -> pd.DataFrame:
    """Standing summaries of a metric: ``quarter, model``, the distribution over series, ``skill``.

    Args:
        quarters: None for all that were scored.

    Returns:
        By quarter, the best mean first; empty if nothing was scored.
    """
    query = (
        _summaries(Run.quarter_start, Model.model_name)
        .where(
            Run.experiment_id == experiment_id,
            Run.deleted_at.is_(None),
            Run.status == "completed",
            MetricSummary.metric_name == metric,
            MetricSummary.horizon_bucket == horizon_bucket,
        )
        .order_by(Run.quarter_start, MetricSummary.mean_value, Model.model_name)
    )
    if quarters is not None:
        query = query.where(Run.quarter_start.in_([q.start.date() for q in quarters]))
    frame = _frame(session, query, ["quarter", "model"])
    frame["quarter"] = [Quarter.of(day).label for day in frame["quarter"]]
    return frame


def quarter_accuracy(session: Session, run_id: int) -> pd.DataFrame:
    """Every summary of one evaluation: ``model, metric, horizon_bucket``, distribution, ``skill``.

    In the order in which it was written: the pipeline's metrics, then models and buckets.
    """
    query = (
        _summaries(Model.model_name, MetricSummary.metric_name, MetricSummary.horizon_bucket)
        .where(MetricSummary.run_id == run_id)
        .order_by(MetricSummary.summary_id)
    )
    return _frame(session, query, ["model", "metric", "horizon_bucket"])


def worst_series(
    session: Session,
    experiment_id: int,
    quarter: Quarter,
    *,
    metric: str = "mae",
    model: str | None = None,
    limit: int = 10,
) -> pd.DataFrame:
    """The series with the largest error: ``model, unique_id, observations, <metric>``.

    Args:
        model: None for all models; each is listed on its own row.

    Raises:
        EvaluationError: the quarter was not scored, or not by that metric or model.
        ArtifactError: the stored scores are damaged.
    """
    run = current_run(session, experiment_id, "evaluate", quarter)
    if run is None:
        raise EvaluationError(
            f"{quarter.label} was not scored.", remedy="Materialize metric_summaries first."
        )
    artifact = session.execute(
        select(Artifact).where(
            Artifact.run_id == run.run_id, Artifact.artifact_name == ARTIFACT_NAME
        )
    ).scalar_one()
    scores = pd.read_parquet(verify_artifact(artifact).local)
    models = sorted(scores["model"].unique())
    if metric not in scores.columns or (model is not None and model not in models):
        measured = list(scores.columns[5:])
        raise EvaluationError(
            f"{quarter.label} has no {metric} of {model or 'any model'}.",
            remedy=f"Metrics: {', '.join(measured)}; models: {', '.join(models)}.",
        )
    is_asked = (scores["horizon_bucket"] == ALL) & scores[metric].notna()
    if model is not None:
        is_asked &= scores["model"] == model
    chosen = scores.loc[is_asked, ["model", "unique_id", "observations", metric]]
    # A bias is bad in both directions; every other metric is at least zero.
    return chosen.sort_values(
        metric, key=lambda column: -column.abs(), kind="stable", ignore_index=True
    ).head(limit)


def rank_series(frame: pd.DataFrame) -> pd.DataFrame:
    """Series by their error relative to their size, worst first.

    Args:
        frame: ``unique_id, model, predicted_value, actual_value``; rows without an actual value are
            left out.

    Returns:
        ``unique_id, nd`` (sum of errors over sum of values, the mean of the models), ``mae``
        (likewise), ``observations``; series whose actual values are all zero come last. Empty if
        there is no actual value.
    """
    import utilsforecast.losses as losses

    known = frame.loc[
        frame["actual_value"].notna(), ["unique_id", "model", "predicted_value", "actual_value"]
    ]
    columns = ["unique_id", "nd", "mae", "observations"]
    if known.empty:
        return pd.DataFrame(columns=columns)
    known = known.astype({"unique_id": "object", "model": "object"})
    names: dict[str, Any] = {"target_col": "actual_value", "cutoff_col": "model"}
    by_series = {
        name: loss(known, models=["predicted_value"], **names)
        .groupby("unique_id")["predicted_value"]
        .mean()
        for name, loss in (("nd", losses.nd), ("mae", losses.mae))
    }
    by_series["observations"] = known.groupby("unique_id").size()
    ranked = pd.DataFrame(by_series).rename_axis("unique_id").reset_index()[columns]
    ranked["nd"] = ranked["nd"].where(ranked["nd"] < float("inf"))
    return ranked.sort_values("nd", ascending=False, kind="stable", ignore_index=True)


def telling_series(
    frame: pd.DataFrame, ranked: pd.DataFrame | None = None
) -> list[tuple[str, str]]:
    """The worst, the median and the best series with their roles; without actual values, any three.

    Args:
        frame: as ``rank_series`` takes it.
        ranked: its result, where that is known already.
    """
    ranked = rank_series(frame) if ranked is None else ranked
    if ranked.empty:
        return [(str(name), "no actuals yet") for name in frame["unique_id"].unique()[:3]]
    chosen: dict[str, str] = {}
    places = {"worst": 0, "median": len(ranked) // 2, "best": len(ranked) - 1}
    for role, place in places.items():
        chosen.setdefault(str(ranked["unique_id"].iloc[place]), role)
    return list(chosen.items())


def _summaries(*leading: Any) -> Select[Any]:
    return (
        select(
            *leading,
            MetricSummary.min_value,
            MetricSummary.q1_value,
            MetricSummary.median_value,
            MetricSummary.mean_value,
            MetricSummary.q3_value,
            MetricSummary.max_value,
            MetricSummary.std_value,
            MetricSummary.sample_count,
            MetricSummary.skill,
        )
        .join(Run, Run.run_id == MetricSummary.run_id)
        .join(Model, Model.model_id == MetricSummary.model_id)
    )


def _frame(session: Session, query: Select[Any], leading: list[str]) -> pd.DataFrame:
    rows = [tuple(row) for row in session.execute(query)]
    frame = pd.DataFrame(rows, columns=[*leading, *_DISTRIBUTION])
    numbers = [name for name in _DISTRIBUTION if name != "series"]
    return frame.astype(dict.fromkeys(numbers, "float64"))
