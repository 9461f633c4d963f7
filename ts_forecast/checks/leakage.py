"""No model has seen its own quarter: judged by what is on record of it, not by how it was made."""

from __future__ import annotations

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.checks.result import CheckResult
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tables.dataset import Dataset
from ts_forecast.tables.training import Model


def check_leakage(
    session: Session, pipeline: Pipeline, quarter: Quarter, model: Model
) -> CheckResult:
    """The model's last observation lies at or before the quarter's first cutoff.

    Its ``fit_until`` is compared with the definition as it stands now, and every dataset on its record
    has to be one of an earlier quarter. A model without these records fails: nobody can tell.
    """
    index = pd.Index([pipeline.slice_plan(quarter).fit_until]).to_numpy()
    limit = pipeline.grid.timestamps(index)[0]
    recorded = (model.model_config or {}).get("fit_until")
    used = (model.metadata_ or {}).get("datasets") or []
    figures: dict[str, float | int | str] = {"limit": str(limit), "datasets": len(used)}
    if recorded is None or not used:
        reason = f"{model.model_name} has no record of what it was fitted on"
        return CheckResult("leakage", False, reason, figures)
    fit_until = pd.Timestamp(recorded)
    late = session.scalars(
        select(Dataset.dataset_name).where(
            Dataset.dataset_id.in_([item["dataset_id"] for item in used]),
            Dataset.quarter_start >= quarter.start.date(),
        )
    ).all()
    figures |= {
        "fit_until": str(fit_until),
        "days_before_quarter": (pd.Timestamp(quarter.start) - fit_until) / pd.Timedelta("1D"),
        "late_datasets": len(late),
    }
    problems = []
    if model.quarter_start != quarter.start.date():
        problems.append(f"it is the model of {model.quarter_start}")
    if fit_until > limit:
        problems.append(f"it was fitted until {fit_until}, the first cutoff is {limit}")
    if late:
        problems.append(f"it was fitted on {', '.join(sorted(late))}")
    reason = f"{model.model_name}: " + (
        "; ".join(problems) or f"fitted until {fit_until}, at or before {limit}"
    )
    return CheckResult("leakage", not problems, reason, figures)
