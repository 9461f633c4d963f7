"""How well models forecast the quarters before a quarter: what may be known of them when it begins.

For choosing champions. Measuring is ``evaluation``'s.
"""

from __future__ import annotations

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tables.evaluation import MetricSummary
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model

_ALL_HORIZONS = "all"


def past_errors(
    session: Session, pipeline: Pipeline, experiment_id: int, quarter: Quarter
) -> pd.DataFrame:
    """Errors of the quarters that count for a quarter: a row a quarter, a column a model.

    The pipeline's champion metric, its mean over series in standing evaluations, over all horizons; a
    bias without its sign. Empty if none of the quarters was scored.
    """
    rows = session.execute(
        select(Run.quarter_start, Model.model_name, MetricSummary.mean_value)
        .join(Run, Run.run_id == MetricSummary.run_id)
        .join(Model, Model.model_id == MetricSummary.model_id)
        .where(
            Run.experiment_id == experiment_id,
            Run.deleted_at.is_(None),
            Run.status == "completed",
            # Never the quarter itself: it begins where the last one that counts ends.
            Run.quarter_start >= quarter.shift(-pipeline.champion.quarters).start.date(),
            Run.quarter_start < quarter.start.date(),
            MetricSummary.metric_name == pipeline.champion_metric,
            MetricSummary.horizon_bucket == _ALL_HORIZONS,
        )
    )
    frame = pd.DataFrame([tuple(row) for row in rows], columns=["quarter", "model", "error"])
    errors = frame.astype({"error": "float64"}).pivot(
        index="quarter", columns="model", values="error"
    )
    errors.index = pd.Index([Quarter.of(day).label for day in errors.index], name="quarter")
    return errors.abs()


def complete_means(errors: pd.DataFrame) -> dict[str, float]:
    """Mean errors of the models that were scored in every quarter of ``past_errors``."""
    return {
        str(name): float(column.mean()) for name, column in errors.items() if column.notna().all()
    }
