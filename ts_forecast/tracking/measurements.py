"""Parameters and metrics of a run, as rows.

Typed, in sorted order, in one statement each. Which metrics there are is decided by ``training``
and ``evaluation``; their distribution over series is written by ``evaluation``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import insert
from sqlalchemy.orm import Session

from ts_forecast.errors import EvaluationError, TrainingError, TsForecastError
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.training import Hyperparameter

ParameterType = Literal["string", "integer", "float", "boolean", "json"]
DatasetType = Literal["train", "validation", "test", "production"]


@dataclass(frozen=True)
class MetricRow:
    """One number of a run.

    Attributes:
        step: training step; 0 where there is none.
        dataset_type: which part of the data it was measured on.
        context: what it was measured in, e.g. ``2025-Q2/1-6``.
    """

    name: str
    value: float
    step: int = 0
    dataset_type: DatasetType = "validation"
    context: str | None = None
    model_id: int | None = None


def log_parameters(
    session: Session,
    run_id: int,
    parameters: Mapping[str, object],
    *,
    category: str | None = None,
    is_hyperparameter: bool = True,
) -> int:
    """Write parameters of a run, sorted by key; returns how many.

    Args:
        parameters: anything that JSON can hold; the type is inferred.
        category: groups them, e.g. ``model`` or ``data``.
        is_hyperparameter: False for settings of the run rather than of the model.

    Raises:
        TrainingError: a value cannot be written as JSON, or is not finite.
    """
    rows = []
    for name in sorted(parameters):
        kind, text = typed_text(name, parameters[name])
        rows.append(
            {
                "run_id": run_id,
                "param_key": name,
                "param_value": text,
                "param_type": kind,
                "is_hyperparameter": is_hyperparameter,
                "param_category": category,
            }
        )
    if rows:
        session.execute(insert(Hyperparameter), rows)
    return len(rows)


def typed_text(name: str, value: object) -> tuple[ParameterType, str]:
    """The type of a parameter and its text; the text of a float reads back as the same float.

    >>> typed_text("max_steps", 500), typed_text("lr", 1e-3), typed_text("scaler", "standard")
    (('integer', '500'), ('float', '0.001'), ('string', 'standard'))
    >>> typed_text("early", False), typed_text("pools", [2, 2, 1]), typed_text("seed", None)
    (('boolean', 'false'), ('json', '[2, 2, 1]'), ('json', 'null'))

    Raises:
        TrainingError: the value cannot be written as JSON, or is not finite.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return "string", value
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"The parameter {name} cannot be recorded: {error}.",
            remedy="Use strings, finite numbers, booleans, null, lists and mappings.",
        ) from None
    if isinstance(value, bool):
        return "boolean", text
    if isinstance(value, int):
        return "integer", text
    if isinstance(value, float):
        return "float", text
    return "json", text


def log_metrics(session: Session, run_id: int, rows: Iterable[MetricRow]) -> int:
    """Write metrics of a run, sorted by name and step, in one statement; returns how many.

    Raises:
        TrainingError: a value on training or validation data is not finite; nothing is written.
        EvaluationError: likewise on test or production data.
    """
    ordered = sorted(rows, key=lambda row: (row.name, row.context or "", row.step))
    for row in ordered:
        if not math.isfinite(row.value):
            raise _not_finite(row)
    values = [
        {
            "run_id": run_id,
            "model_id": row.model_id,
            "metric_name": row.name,
            "metric_value": float(row.value),
            "metric_step": row.step,
            "dataset_type": row.dataset_type,
            "evaluation_context": row.context,
        }
        for row in ordered
    ]
    if values:
        session.execute(insert(Metric), values)
    return len(values)


def _not_finite(row: MetricRow) -> TsForecastError:
    where = f" ({row.context})" if row.context else ""
    problem = f"The {row.dataset_type} metric {row.name}{where} is {row.value} at step {row.step}."
    if row.dataset_type in ("train", "validation"):
        return TrainingError(
            problem, remedy="The fit diverged: lower the learning rate or set a scaler."
        )
    return EvaluationError(problem, remedy="Look at the forecasts and actuals of this slice.")
