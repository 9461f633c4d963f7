"""A run of several quarters with a process beside its steps: the same rows, models and metadata."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from assets import predictions, summaries, training
from assets.datasets import build_dataset_assets
from assets.predictions import build_predictions
from assets.summaries import build_metric_summaries
from assets.training import build_trained_models
from resources.device_locks import take_device
from resources.devices import Device
from resources.free_slots import FreeSlots, offer
from resources.postgres import postgres_resource
from tests.end_to_end.conftest import Problem
from ts_forecast import side_by_side
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.quarters import Quarter

OURS, OTHER = (Device(f"cpu-{slot}", is_gpu=False, threads=1) for slot in range(2))
FIRST, LAST = "2023-04-01", "2023-10-01"


def materialize(problem: Problem, engine: Engine, slots: FreeSlots | None) -> dict[str, Any]:
    """Three quarters in one run; the metadata of each materialization, and the rows that are read."""
    pipeline = problem.pipeline
    assets = [
        *build_dataset_assets(pipeline),
        *build_trained_models(pipeline),
        build_predictions(pipeline),
        build_metric_summaries(pipeline),
    ]
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.ephemeral())
        if slots is not None:
            stack.enter_context(take_device(slots.locks, [OURS], holder="the step"))
            stack.enter_context(offer(slots))
        result = dg.materialize(
            assets,
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": FIRST,
                "dagster/asset_partition_range_end": LAST,
            },
            resources={"postgres": postgres_resource(problem.settings)},
        )
    assert result.success
    metadata = {}
    for event in (found.materialization for found in result.get_asset_materialization_events()):
        if not event.asset_key.path[-1].startswith("dataset"):
            metadata[event.asset_key.path[-1], event.partition] = event.metadata
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT unique_id, prediction_date, horizon, predicted_value, lower_bound FROM predictions "
                "JOIN models USING (model_id) ORDER BY model_name, 1, 2, 3"
            )
        ).all()
        slots_used = connection.scalars(
            text("SELECT count(*) FROM runs WHERE status <> 'completed'")
        )
        assert list(slots_used) == [0]
    reports = problem.settings.output_dir.glob("reports/**/*.html")
    return {
        "metadata": metadata,
        "rows": rows,
        "reports": {path: path.read_text(encoding="utf-8") for path in reports},
    }


def is_helped(engine: Engine) -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'ts-forecast (beside)'"
    )
    with engine.connect() as connection:
        count = connection.scalar(text(query))
    return bool(count)


def is_scored(engine: Engine, quarter: str) -> bool:
    query = (
        "SELECT count(*) FROM runs WHERE run_name = :name AND status IN ('completed', 'evaluated')"
    )
    with engine.connect() as connection:
        count = connection.scalar(text(query), {"name": f"shop/{quarter}/evaluate"})
    return bool(count)


def test_quarters__with_a_process_beside__are_those_of_one_process(
    make_problem: Callable[..., Problem],
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(side_by_side, "_PATIENCE", 0.0)
    monkeypatch.setattr(side_by_side, "_LOOK_SECONDS", 0.05)
    slots = FreeSlots(
        [OURS, OTHER], tmp_path / "locks", "a step", preload=("assets.training", "neuralforecast")
    )
    problem = make_problem(quarters_per_run=3)
    helped: list[bool] = []

    def slow(really: Callable[..., Any]) -> Callable[..., Any]:
        """In the first quarter as long as a process beside needs until it is at work."""

        def work(*arguments: Any, **options: Any) -> Any:
            if Quarter.parse("2023-Q2") in arguments:
                end = time.monotonic() + 60
                while not (found := is_helped(engine)) and time.monotonic() < end:
                    time.sleep(0.02)
                helped.append(found)
                if really is score_quarter:
                    wait_for_last_score()
            return really(*arguments, **options)

        return work

    def wait_for_last_score() -> None:
        """Until the last quarter is scored and what follows from that is done, before the first is."""
        end = time.monotonic() + 60
        while not is_scored(engine, "2023-Q4") and time.monotonic() < end:
            time.sleep(0.02)
        assert not is_scored(engine, "2023-Q2")
        time.sleep(1)

    monkeypatch.setattr(training, "train_quarter", slow(training.train_quarter))
    monkeypatch.setattr(predictions, "forecast_quarter", slow(predictions.forecast_quarter))
    monkeypatch.setattr(summaries, "score_quarter", slow(score_quarter))

    beside = materialize(problem, engine, slots)

    assert beside["rows"]
    assert helped == [True] * 5, "three models, their forecasts and scores"
    monkeypatch.undo()
    again = materialize(problem, engine, None)
    assert again["rows"] == beside["rows"]
    # They compare a quarter with those before it, which may have been scored after it.
    assert len(beside["reports"]) == 3
    assert again["reports"] == beside["reports"]
    for key, metadata in beside["metadata"].items():
        for name in ("fingerprint", "content_hash", "model_id", "run_id"):
            assert metadata.get(name) == again["metadata"][key].get(name), key
        assert metadata["reused"].value is False
        assert again["metadata"][key]["reused"].value is True
