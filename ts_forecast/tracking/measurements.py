"""Parameters and metrics of runs, many rows in one statement."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from ts_forecast.errors import TsForecastError
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.training import Hyperparameter


def log_parameters(
    session: Session,
    run_id: int,
    parameters: Mapping[str, Any],
    *,
    category: str | None = None,
    is_hyperparameter: bool = True,
) -> None:
    """Write the parameters of a run, one row each, sorted by key."""
    rows = []
    for key in sorted(parameters):
        kind, value = _typed(parameters[key])
        rows.append(
            {
                "run_id": run_id,
                "param_key": key,
                "param_value": value,
                "param_type": kind,
                "param_category": category,
                "is_hyperparameter": is_hyperparameter,
            }
        )
    if rows:
        session.execute(insert(Hyperparameter), rows)


def log_metrics(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics, given as rows of the table ``metrics``.

    Raises:
        TsForecastError: a value is not finite; says which.
    """
    for row in rows:
        if not math.isfinite(row["metric_value"]):
            raise TsForecastError(
                f"The metric {row['metric_name']} of run {row['run_id']} is {row['metric_value']} "
                f"at step {row.get('metric_step', 0)}."
            )
    if rows:
        session.execute(insert(Metric), [dict(row) for row in rows])


def _typed(value: Any) -> tuple[str, str]:
    if isinstance(value, bool):
        return "boolean", "true" if value else "false"
    if isinstance(value, int):
        return "integer", str(value)
    if isinstance(value, float):
        return "float", repr(value)
    if isinstance(value, str):
        return "string", value
    return "json", json.dumps(value, sort_keys=True)
