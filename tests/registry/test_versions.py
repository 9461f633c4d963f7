"""Versions count up without gaps or twins, whoever registers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select

from ts_forecast.db.engine import transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry.versions import register_version
from ts_forecast.tables.registry import RegisteredModel
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import RunKey, tracked_run


@pytest.fixture
def pipeline() -> Pipeline:
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
def models(engine: Engine, pipeline: Pipeline) -> list[int]:
    """Eight fitted models."""
    with transaction(engine) as session:
        experiment_id = ensure_experiment(session, pipeline)
    key = RunKey(experiment_id, "train", "demo", "f" * 64, Quarter(2024, 1))
    with tracked_run(engine, key) as run, transaction(engine) as session:
        rows = [
            Model(
                run_id=run.run_id,
                model_name="net",
                model_type="NHITS",
                framework="neuralforecast",
                model_config={},
                model_file_path="none",
            )
            for _ in range(8)
        ]
        session.add_all(rows)
        session.flush()
        run.complete(session)
        return [row.model_id for row in rows]


def test_register_version__many_at_once(
    engine: Engine, pipeline: Pipeline, models: list[int]
) -> None:
    def register(model_id: int) -> int:
        with transaction(engine) as session:
            return register_version(session, pipeline, "net", model_id)

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(register, [*models, *models]))

    assert sorted(versions[:8]) == list(range(1, 9))
    # Each model was registered twice and got the same version.
    assert versions[8:] == versions[:8]
    with transaction(engine) as session:
        rows = session.scalars(select(RegisteredModel)).all()
        assert len(rows) == 8
        assert {row.registered_model_name for row in rows} == {"demo/net"}
        assert {row.current_stage for row in rows} == {"staging"}


def test_register_version__names_count_on_their_own(
    engine: Engine, pipeline: Pipeline, models: list[int]
) -> None:
    with transaction(engine) as session:
        assert register_version(session, pipeline, "net", models[0]) == 1
        assert register_version(session, pipeline, "other", models[1]) == 1
        assert register_version(session, pipeline, "net", models[2]) == 2
