"""Parameters and metrics of a run, as rows.

Typed, in one statement each, in the order of their keys, so that two writers of one run wait for each
other and never deadlock. A statement takes arrays and unnests them: its text and its plan are the same
for any number of rows, and unlike COPY it is open to roles that row-level security binds.

A value that PostgreSQL cannot hold, or that would not compare, is refused before anything is sent: NaN
and infinities (PostgreSQL would store them, and every mean and order over them would be wrong), NUL,
half surrogate pairs, names that are too long. Which metrics there are is decided by ``training`` and
``evaluation``; their distribution over series is written by ``evaluation``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from ts_forecast.db.text import unstorable
from ts_forecast.errors import EvaluationError, TrainingError, TsForecastError

ParameterType = Literal["string", "integer", "float", "boolean", "json"]
DatasetType = Literal["train", "validation", "test", "production"]
_LONGEST_KEY = 255
_LONGEST_NAME = 100
_LAST_STEP = 2**31 - 1

_INSERT_PARAMETERS = text(
    "INSERT INTO hyperparameters "
    "(run_id, param_key, param_value, param_type, is_hyperparameter, param_category) "
    "SELECT :run_id, key, value, type, :is_hyperparameter, :category "
    "FROM unnest(CAST(:keys AS text[]), CAST(:values AS text[]), CAST(:types AS text[])) "
    "AS row (key, value, type)"
)
_INSERT_METRICS = text(
    "INSERT INTO metrics (run_id, model_id, metric_name, metric_value, metric_step, dataset_type, "
    "evaluation_context) SELECT :run_id, row.* "
    "FROM unnest(CAST(:models AS bigint[]), CAST(:names AS text[]), CAST(:values AS float8[]), "
    "CAST(:steps AS integer[]), CAST(:types AS text[]), CAST(:contexts AS text[])) AS row"
)


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
    """Write parameters of a run, sorted by key, in one statement; returns how many.

    Args:
        parameters: anything that JSON can hold; the type is inferred.
        category: groups them, e.g. ``model`` or ``data``.
        is_hyperparameter: False for settings of the run rather than of the model.

    Raises:
        TrainingError: a value cannot be written as JSON, or is not finite; a key or a text cannot be
            stored. Nothing is written.
    """
    keys = sorted(parameters)
    typed = [typed_text(key, parameters[key]) for key in keys]
    if keys:
        session.execute(
            _INSERT_PARAMETERS,
            {
                "run_id": run_id,
                "is_hyperparameter": is_hyperparameter,
                "category": category,
                "keys": keys,
                "types": [kind for kind, _ in typed],
                "values": [value for _, value in typed],
            },
        )
    return len(keys)


def typed_text(name: str, value: object) -> tuple[ParameterType, str]:
    """The type of a parameter and its text; the text of a float reads back as the same float.

    >>> typed_text("max_steps", 500), typed_text("lr", 1e-3), typed_text("scaler", "standard")
    (('integer', '500'), ('float', '0.001'), ('string', 'standard'))
    >>> typed_text("early", False), typed_text("pools", [2, 2, 1]), typed_text("seed", None)
    (('boolean', 'false'), ('json', '[2, 2, 1]'), ('json', 'null'))

    Raises:
        TrainingError: the value cannot be written as JSON, or is not finite; the name or the text
            cannot be stored.
    """
    if reason := "is empty" if not name else unstorable(name, _LONGEST_KEY):
        raise TrainingError(
            f"The parameter {_shown(name)} cannot be recorded: its name {reason}.",
            remedy="Rename it.",
        )
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        if reason := unstorable(value):
            raise TrainingError(
                f"The parameter {name} cannot be recorded: its text {reason}.",
                remedy="PostgreSQL stores neither; use an escape.",
            )
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
        TrainingError: a value on training or validation data is not finite, or a name or a step cannot
            be stored; nothing is written.
        EvaluationError: likewise on test or production data.
    """
    ordered = sorted(rows, key=lambda row: (row.name, row.context or "", row.step))
    for row in ordered:
        if not math.isfinite(row.value):
            raise _not_finite(row)
        if reason := _unstorable_metric(row):
            raise _error_of(row)(
                f"The {row.dataset_type} metric {_shown(row.name)} cannot be recorded: {reason}.",
                remedy=f"Names and contexts have 1 to {_LONGEST_NAME} characters, steps 31 bits.",
            )
    if ordered:
        session.execute(
            _INSERT_METRICS,
            {
                "run_id": run_id,
                "models": [row.model_id for row in ordered],
                "names": [row.name for row in ordered],
                "values": [float(row.value) for row in ordered],
                "steps": [int(row.step) for row in ordered],
                "types": [row.dataset_type for row in ordered],
                "contexts": [row.context for row in ordered],
            },
        )
    return len(ordered)


def _unstorable_metric(row: MetricRow) -> str | None:
    if not row.name:
        return "its name is empty"
    if reason := unstorable(row.name, _LONGEST_NAME):
        return f"its name {reason}"
    if row.context is not None and (reason := unstorable(row.context, _LONGEST_NAME)):
        return f"its context {reason}"
    return None if 0 <= row.step <= _LAST_STEP else f"its step is {row.step}"


def _not_finite(row: MetricRow) -> TsForecastError:
    where = f" ({row.context})" if row.context else ""
    problem = f"The {row.dataset_type} metric {row.name}{where} is {row.value} at step {row.step}."
    if row.dataset_type in ("train", "validation"):
        remedy = "The fit diverged: lower the learning rate or set a scaler."
    else:
        remedy = "Look at the forecasts and actuals of this slice."
    return _error_of(row)(problem, remedy=remedy)


def _error_of(row: MetricRow) -> type[TrainingError] | type[EvaluationError]:
    return TrainingError if row.dataset_type in ("train", "validation") else EvaluationError


def _shown(name: str) -> str:
    """A name for messages: escaped, and no longer than a line."""
    return ascii(name) if len(name) <= 60 else f"{ascii(name[:60])}…"
