"""A pipeline's experiment and a key to track."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from ts_forecast.db.engine import transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import RunKey


@pytest.fixture
def pipeline() -> Pipeline:
    """The smallest pipeline."""
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2022-01-01",
        "models": ["SeasonalNaive"],
    }
    return parse_pipeline(content, origin="test")


@pytest.fixture
def experiment_id(engine: Engine, pipeline: Pipeline) -> int:
    """Its experiment."""
    with transaction(engine) as session:
        return ensure_experiment(session, pipeline)


@pytest.fixture
def key(experiment_id: int) -> RunKey:
    """Something to compute."""
    return RunKey(experiment_id, "train", "demo/net", "f" * 64, Quarter(2024, 1))
