"""Registered versions of one pipeline without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine

from ts_forecast.db.engine import transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry.versions import register_version
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import RunKey, tracked_run

QUARTER = Quarter(2024, 1)


@pytest.fixture
def pipeline() -> Pipeline:
    """Two baselines, daily."""
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2022-01-01",
        "models": ["SeasonalNaive", "Naive"],
    }
    return parse_pipeline(content, origin="test")


@dataclass(frozen=True)
class Registry:
    """An experiment in whose quarters versions can be registered."""

    engine: Engine
    pipeline: Pipeline
    experiment_id: int

    def register(self, names: Sequence[str], quarter: Quarter = QUARTER) -> list[tuple[str, int]]:
        """A new model and version of each name; their names and numbers."""
        mark = f"{quarter.key}-{'-'.join(names)}-{id(names)}"
        key = RunKey(self.experiment_id, "train", "demo", mark, quarter)
        with tracked_run(self.engine, key, force=True) as run, transaction(self.engine) as session:
            made = []
            for name in names:
                model = Model(
                    run_id=run.run_id,
                    model_name=name,
                    model_type=name,
                    framework="statsforecast",
                    model_config={},
                    model_file_path="none",
                    quarter_start=quarter.start.date(),
                )
                session.add(model)
                session.flush()
                version = register_version(session, self.pipeline, name, model.model_id)
                made.append((f"demo/{name}", version))
            run.complete(session)
        return made


@pytest.fixture
def registry(engine: Engine, pipeline: Pipeline) -> Registry:
    """A registry without versions."""
    with transaction(engine) as session:
        return Registry(engine, pipeline, ensure_experiment(session, pipeline))
