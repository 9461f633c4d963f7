"""Parameters and metrics as typed rows."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, func, select

from ts_forecast.db.engine import transaction
from ts_forecast.errors import EvaluationError, TrainingError
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.training import Hyperparameter
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.runs import RunKey, tracked_run


def test_log_parameters__sorted_and_typed(engine: Engine, key: RunKey) -> None:
    parameters = {"steps": 500, "lr": 1e-3, "scaler": "robust", "pad": True, "pools": [2, 1]}

    with tracked_run(engine, key) as run, transaction(engine) as session:
        assert log_parameters(session, run.run_id, parameters, category="model") == 5
        run.complete(session)

    with transaction(engine) as session:
        rows = session.execute(
            select(
                Hyperparameter.param_key, Hyperparameter.param_type, Hyperparameter.param_value
            ).order_by(Hyperparameter.hyperparameter_id)
        ).all()
    assert [tuple(row) for row in rows] == [
        ("lr", "float", "0.001"),
        ("pad", "boolean", "true"),
        ("pools", "json", "[2, 1]"),
        ("scaler", "string", "robust"),
        ("steps", "integer", "500"),
    ]


def test_log_metrics__writes_curves(engine: Engine, key: RunKey) -> None:
    curve = [MetricRow("loss", 1 / (step + 1), step, "train") for step in range(2_000)]

    with tracked_run(engine, key) as run, transaction(engine) as session:
        assert log_metrics(session, run.run_id, curve) == 2_000
        run.complete(session)

    with transaction(engine) as session:
        found = session.execute(select(func.count(), func.max(Metric.metric_step))).one()
    assert tuple(found) == (2_000, 1_999)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (MetricRow("loss", float("nan"), 7, "train"), TrainingError),
        (MetricRow("mae", float("inf"), 0, "test", "2024-Q1/all"), EvaluationError),
    ],
)
def test_log_metrics__refuses_what_is_not_finite(
    engine: Engine, key: RunKey, row: MetricRow, kind: type[Exception]
) -> None:
    good = MetricRow("loss", 1.0, 0, "train")

    with pytest.raises(kind, match=f"metric {row.name}.* is .* at step {row.step}"):
        with tracked_run(engine, key) as run, transaction(engine) as session:
            log_metrics(session, run.run_id, [good, row])

    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(Metric)) == 0


def test_log_parameters__refuses_what_json_cannot_hold(engine: Engine, key: RunKey) -> None:
    with pytest.raises(TrainingError, match="parameter optimizer cannot be recorded"):
        with tracked_run(engine, key) as run, transaction(engine) as session:
            log_parameters(session, run.run_id, {"optimizer": object()})
