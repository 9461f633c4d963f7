"""A search small enough to be run for real, and again, and in processes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Engine, text

from tests.end_to_end.conftest import Problem
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db.engine import transaction
from ts_forecast.quarters import Quarter
from ts_forecast.search.trials import choose_parameters, trial_table
from ts_forecast.training.quarter import TrainingOutcome, train_quarter
from ts_forecast.training.search import ChooseParameters

REPOSITORY = Path(__file__).parents[2]
QUARTER = Quarter(2023, 2)
SPACE: dict[str, Any] = {
    "max_steps": {"values": [2, 3]},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "input_size": {"values": [1, 2], "times": "horizon"},
    "hidden_size": {"low": 8, "high": 16, "step": 8, "type": "integer"},
    "windows_batch_size": 32,
}


def ingest(problem: Problem, engine: Engine) -> None:
    pipeline = problem.pipeline
    ingest_quarters(engine, problem.settings, pipeline, [*pipeline.window(QUARTER), QUARTER])


def train(
    problem: Problem,
    engine: Engine,
    *,
    force: bool = False,
    choose: ChooseParameters = choose_parameters,
) -> TrainingOutcome:
    return train_quarter(
        engine,
        problem.settings,
        problem.pipeline,
        problem.pipeline.models[0],
        QUARTER,
        force=force,
        choose=choose,
    )


def tried(engine: Engine, run_id: int) -> pd.DataFrame:
    """The trials without what differs from one attempt to the next."""
    with transaction(engine) as session:
        return trial_table(session, run_id).drop(columns=["run_id", "seconds"])


def rows(engine: Engine, sql: str, **parameters: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(sql), parameters))
