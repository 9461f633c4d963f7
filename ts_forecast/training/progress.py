"""A fit's loss curves as they grow: batched, into ``metrics``.

The rows of a running fit have no model yet. When the model is stored they make room for the whole
curves in the same transaction, so nothing is there twice; of a fit that failed they stay, and show
how far it came.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ts_forecast.db.retry import Patience, in_transaction
from ts_forecast.errors import DatabaseError
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tracking.measurements import DatasetType, MetricRow, log_metrics
from ts_forecast.training.options import FitProgress

CURVES: dict[str, DatasetType] = {"train_loss": "train", "valid_loss": "validation"}
# A fit does not stand still because the database does: the next report has the points again.
_SHORT = Patience(attempts=1, seconds=0.0)
_log = logging.getLogger(__name__)


class CurveStream:
    """Writes the points of a fit's reports as rows of its run, and passes the reports on.

    Points that could not be written wait for the next report. The database being away never ends or
    delays a fit beyond one attempt a report.
    """

    def __init__(
        self, engine: Engine, run_id: int, tell: Callable[[FitProgress], None] | None = None
    ) -> None:
        self._engine, self._run_id, self._tell = engine, run_id, tell
        self._waiting: list[MetricRow] = []

    def __call__(self, progress: FitProgress) -> None:
        """Take a report."""
        self._waiting += [
            MetricRow(name, loss, step=step, dataset_type=CURVES[name])
            for name, step, loss in progress.points
            if math.isfinite(loss)
        ]
        rows = list(self._waiting)
        try:
            if rows:
                in_transaction(
                    self._engine,
                    lambda session: log_metrics(session, self._run_id, rows),
                    patience=_SHORT,
                )
            self._waiting.clear()
        except (DatabaseError, SQLAlchemyError) as error:
            _log.warning("The loss curve waits: %s", error)
        _log.info("%s", progress)
        if self._tell is not None:
            self._tell(progress)


def loss_curves(session: Session, run_id: int) -> pd.DataFrame:
    """The loss curves of a training run: ``step, name, value``."""
    rows = session.execute(
        select(Metric.metric_step, Metric.metric_name, Metric.metric_value)
        .where(Metric.run_id == run_id, Metric.metric_name.in_(tuple(CURVES)))
        .order_by(Metric.metric_name, Metric.metric_step)
    )
    return pd.DataFrame(rows.all(), columns=["step", "name", "value"])


def clear_streamed(session: Session, run_id: int) -> None:
    """Remove what was streamed of a run's curves, before the whole ones are written."""
    session.execute(
        delete(Metric).where(
            Metric.run_id == run_id,
            Metric.model_id.is_(None),
            Metric.metric_name.in_(tuple(CURVES)),
        )
    )


class Reporter:
    """Tells a listener every few seconds where a fit is; Lightning calls ``look`` after each step."""

    def __init__(self, report: Callable[[FitProgress], None], seconds: float) -> None:
        self._report, self._seconds = report, seconds
        self._seen = {name: 0 for name in CURVES}
        self._begun = self._told = time.monotonic()
        self._first = 0

    def begin(self, trainer: Any, model: Any) -> None:
        """Called as training starts, after a checkpoint was restored: its points come first."""
        self._first = int(trainer.global_step)
        self._begun = self._told = time.monotonic()

    def look(self, trainer: Any, model: Any, *_: Any) -> None:
        """Report if it is time."""
        if time.monotonic() - self._told >= self._seconds:
            self.tell(trainer, model)

    def tell(self, trainer: Any, model: Any) -> None:
        """Report now; called once more as training ends."""
        self._told = time.monotonic()
        points: list[tuple[str, int, float]] = []
        for name, curve in (
            ("train_loss", model.train_trajectories),
            ("valid_loss", model.valid_trajectories),
        ):
            points += [(name, int(step), float(loss)) for step, loss in curve[self._seen[name] :]]
            self._seen[name] = len(curve)
        step = int(trainer.global_step)
        speed = (step - self._first) / max(self._told - self._begun, 1e-9)
        self._report(FitProgress(step, int(trainer.max_steps), tuple(points), speed))
