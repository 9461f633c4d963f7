"""A live pipeline over a folder of files: its real sensor, its real runs, and what they leave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from sqlalchemy import Engine, text

from assets.definitions import build_definitions, job_name
from resources.postgres import postgres_resource
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.training.quarter import train_quarter

CONTENT = {
    "source": {"files": "raw/*.csv"},
    "frequency": "D",
    "horizon": 7,
    "start": "2023-01-01",
    "end": "2024-12-31",
    "window_quarters": 2,
    "missing": "interpolate",
    "models": ["SeasonalNaive"],
    "levels": [80],
    "metrics": ["mae", "mase"],
    "live": True,
    "retrain": "on_restated_data",
}


def days(first: str, last: str, level: float = 10.0) -> pd.DataFrame:
    """Rows of two series; the value tells the day."""
    stamps = pd.date_range(first, last)
    values = level + stamps.dayofyear.to_numpy() % 11 + stamps.dayofweek.to_numpy()
    parts = [
        pd.DataFrame({"unique_id": name, "ds": stamps, "y": values * k})
        for name, k in (("a", 1.0), ("b", 2.0))
    ]
    return pd.concat(parts, ignore_index=True)


@dataclass
class Live:
    """A live pipeline; ``tick`` is what the daemon does every 30 seconds."""

    settings: Settings
    engine: Engine
    pipeline: Pipeline
    instance: dg.DagsterInstance
    cursor: str | None = None
    keys: set[str] = field(default_factory=set)
    done: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.definitions = build_definitions(self.settings, {self.pipeline.name: self.pipeline})

    def put(self, name: str, content: pd.DataFrame | str, *, age: float = 60) -> Path:
        path = self.settings.data_dir / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else content.to_csv(index=False)
        path.write_text(text, encoding="utf-8")
        moment = time.time() - age
        os.utime(path, (moment, moment))
        return path

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"postgres": postgres_resource(self.settings)},
        )
        with context:
            result = self.definitions.resolve_sensor_def(f"{self.pipeline.name}_arrivals")(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return result

    def run(self, request: dg.RunRequest) -> bool:
        """Execute a request as the daemon would: not at all if its key is known."""
        assert request.run_key is not None and request.asset_selection is not None
        if request.run_key in self.keys:
            return True
        self.keys.add(request.run_key)
        result = self.definitions.resolve_job_def(job_name(self.pipeline.name)).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection),
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        if request.partition_key is not None:
            keys = [request.partition_key]
        else:
            ends = (
                Quarter.parse(request.tags[tag])
                for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
            )
            keys = [quarter.key for quarter in quarter_range(*ends)]
        names = tuple("/".join(key.path[1:]) for key in request.asset_selection)
        self.done += [(Quarter.parse(key).label, names) for key in keys]
        return result.success

    def settle(self, ticks: int = 12, *, only: str = "") -> str:
        """Tick and run until two ticks in a row ask for nothing new; the last tick's skip message.

        Only what starts with ``only`` is run, to save time.
        """
        quiet = 0
        for _ in range(ticks):
            result = self.tick()
            new = [
                request
                for request in result.run_requests or ()
                if request.run_key not in self.keys and (request.run_key or "").startswith(only)
            ]
            for request in new:
                assert self.run(request), request
            quiet = 0 if new else quiet + 1
            if quiet == 2:
                message = result.skip_reason.skip_message if result.skip_reason else ""
                return message or ""
        raise AssertionError(f"not settled after {ticks} ticks: {self.done}")

    def news(self) -> list[tuple[str, tuple[str, ...]]]:
        """What ran since the last call."""
        done, self.done = self.done, []
        return done

    def tables(self, pipeline: str) -> dict[str, list[Any]]:
        """What readers see of a pipeline, without keys and times."""
        queries = {
            "datasets": (
                "SELECT DISTINCT ON (quarter_start) quarter_start, num_rows, "
                "metadata->>'content_hash' FROM datasets WHERE dataset_type = 'processed' "
                "AND dataset_name LIKE :name || '/%' ORDER BY quarter_start, dataset_id DESC"
            ),
            "models": (
                "SELECT DISTINCT ON (m.quarter_start, model_name) m.quarter_start, model_name, "
                "m.metadata->>'data_hash' FROM models m JOIN runs r USING (run_id) "
                "JOIN experiments USING (experiment_id) WHERE experiment_name = :name "
                "AND r.status = 'completed' AND r.deleted_at IS NULL "
                "ORDER BY m.quarter_start, model_name, r.end_time DESC"
            ),
            "predictions": (
                "SELECT unique_id, prediction_date, horizon, predicted_value, actual_value, "
                "lower_bound, upper_bound FROM predictions JOIN experiments USING (experiment_id) "
                "WHERE experiment_name = :name ORDER BY 1, 2, 3"
            ),
            "summaries": (
                "SELECT s.quarter_start, metric_name, horizon_bucket, mean_value, skill, "
                "sample_count FROM metric_summaries s JOIN runs r USING (run_id) "
                "JOIN experiments e USING (experiment_id) WHERE experiment_name = :name "
                "AND r.deleted_at IS NULL AND r.status = 'completed' ORDER BY 1, 2, 3"
            ),
        }
        with self.engine.connect() as connection:
            return {
                key: [tuple(row) for row in connection.execute(text(query), {"name": pipeline})]
                for key, query in queries.items()
            }

    def rebuilt(self, first: str, last: str, *, only: str = "") -> dict[str, list[Any]]:
        """The tables of another pipeline of the same definition, built once from the files as they are."""
        twin = self.pipeline.model_copy(update={"name": "rebuilt"})
        quarters = list(quarter_range(Quarter.parse(first), Quarter.parse(last)))
        ingest_quarters(self.engine, self.settings, twin, quarters)
        for quarter in quarters[1:] if only != "datasets" else []:
            for spec in twin.models:
                train_quarter(self.engine, self.settings, twin, spec, quarter)
            forecast_quarter(self.engine, self.settings, twin, quarter)
            score_quarter(self.engine, self.settings, twin, quarter)
        return self.tables("rebuilt")

    def uploads(self) -> list[tuple[str, str]]:
        query = "SELECT file_path, status FROM staging.uploads ORDER BY upload_id"
        with self.engine.connect() as connection:
            return [(Path(row[0]).name, row[1]) for row in connection.execute(text(query))]


@pytest.fixture
def make_live(settings: Settings, engine: Engine) -> Iterator[Callable[..., Live]]:
    """Build a live pipeline with changes to its file."""
    with dg.DagsterInstance.ephemeral() as instance:

        def make(**changes: Any) -> Live:
            pipeline = parse_pipeline({"name": "shop"} | CONTENT | changes, origin="shop.yaml")
            return Live(settings, engine, pipeline, instance)

        yield make


@pytest.fixture
def live(make_live: Callable[..., Live]) -> Live:
    """The live pipeline as it stands in ``CONTENT``."""
    return make_live()
