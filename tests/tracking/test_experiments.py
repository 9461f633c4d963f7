"""One experiment a pipeline, whoever asks first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, func, select

from ts_forecast.db.engine import transaction
from ts_forecast.errors import DatabaseError
from ts_forecast.pipeline import Pipeline
from ts_forecast.tables.experiment import Experiment
from ts_forecast.tracking.experiments import ensure_experiment, experiment_id, find_experiment


def test_ensure_experiment__keeps_id_and_latest_definition(
    engine: Engine, pipeline: Pipeline
) -> None:
    with transaction(engine) as session:
        first = ensure_experiment(session, pipeline)
    changed = pipeline.model_copy(update={"horizon": 14})

    with transaction(engine) as session:
        second = ensure_experiment(session, changed)

    assert second == first
    with transaction(engine) as session:
        found = find_experiment(session, pipeline.name)
        assert found is not None and found.metadata_ == changed.model_dump(mode="json")


def test_ensure_experiment__many_at_once_get_one_row(engine: Engine, pipeline: Pipeline) -> None:
    def ensure(_: int) -> int:
        with transaction(engine) as session:
            return ensure_experiment(session, pipeline)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ensure, range(24)))

    assert len(found) == 1
    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(Experiment)) == 1


def test_experiment_id__unknown_pipeline(engine: Engine) -> None:
    with transaction(engine) as session, pytest.raises(DatabaseError, match="no pipeline 'ghost'"):
        experiment_id(session, "ghost")
