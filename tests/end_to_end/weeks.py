"""Files of simulated weeks that arrive at a live pipeline, and what must have come of them in the end.

The content covers weeks; the clock runs as it does. A ``Source`` writes files, well and badly;
``settle`` waits until the sensor finds nothing to do; ``contents`` and ``rebuilt`` say what readers see.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from assets.backfill import BackfillError
from assets.backfill_progress import incomplete
from tests.end_to_end.serving import Deployment
from ts_forecast.datasets.profile import profile_dataset
from ts_forecast.datasets.quarter import current_dataset, ingest_quarters
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.pipeline import Pipeline
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.training.quarter import train_quarter

FIRST_DAY = date(2023, 1, 1)
_TICKS = """
query Ticks($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState {
    ticks(limit: 2) { timestamp status skipReason error { message } }
  } } }
}
"""
_RUNS = """
query Runs($tags: [ExecutionTag!]) {
  runsOrError(filter: {tags: $tags}, limit: 1000) { ... on Runs { results { id status tags { key value } } } }
}
"""
_FINAL = {"SUCCESS", "FAILURE", "CANCELED"}


def definition(name: str) -> dict[str, Any]:
    """A tiny live pipeline: two daily series, one neural model of two steps."""
    return {
        "source": {"files": f"raw/{name}/*.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": FIRST_DAY.isoformat(),
        "end": "2024-12-31",
        "window_quarters": 2,
        "missing": "interpolate",
        "models": [
            "SeasonalNaive",
            {"model": "MLP", "parameters": {"max_steps": 2, "input_size": 14, "hidden_size": 8}},
        ],
        "levels": [80],
        "metrics": ["mae", "mase"],
        "live": True,
        "retrain": "on_restated_data",
        "settle_seconds": 2,
    }


class Source:
    """The folder of a pipeline's files, a file a week."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bad: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def good(self) -> list[Path]:
        """Those that are there in the end and can be read."""
        return [path for path in sorted(self._folder.iterdir()) if path.name not in self._bad]

    def week(self, number: int, *, shift: float = 0.0) -> Path:
        """Write a week's file, or write it anew; a shift makes other values of it."""
        return self._write(f"{_name(number)}.csv", _rows(number, shift))

    def weeks(self, numbers: Collection[int]) -> None:
        for number in numbers:
            self.week(number)

    def restate(self, number: int, *, edition: int, shift: float) -> Path:
        """A file of its own that comes later in the order of names and has the last word."""
        return self._write(f"restated-{edition:03d}-{_name(number)}.csv", _rows(number, shift))

    def malformed(self, number: int) -> Path:
        """A week's file with a day that is none."""
        path = self._folder / f"{_name(number)}.csv"
        wrong = _rows(number, 0.0).astype({"ds": str})
        wrong.loc[3, "ds"] = "the day after"
        self._bad.add(path.name)
        wrong.to_csv(path, index=False)
        return path

    def slowly(self, number: int, seconds: float) -> threading.Thread:
        """Write a week's file line by line, for so long."""
        path = self._folder / f"{_name(number)}.csv"
        lines = _rows(number, 0.0).to_csv(index=False).splitlines(keepends=True)

        def write() -> None:
            with path.open("w", encoding="utf-8") as file:
                for line in lines:
                    # Half a line, so that a look in between finds no table.
                    file.write(line[: len(line) // 2])
                    file.flush()
                    time.sleep(seconds / len(lines) / 2)
                    file.write(line[len(line) // 2 :])
                    file.flush()
                    time.sleep(seconds / len(lines) / 2)

        writer = threading.Thread(target=write)
        writer.start()
        return writer

    def _write(self, name: str, frame: pd.DataFrame) -> Path:
        path = self._folder / name
        draft = path.with_suffix(".part")
        frame.to_csv(draft, index=False)
        draft.replace(path)
        self._bad.discard(name)
        return path


def _name(number: int) -> str:
    return f"{FIRST_DAY + timedelta(weeks=number)}"


def _rows(number: int, shift: float) -> pd.DataFrame:
    """A week of both series; the same number gives the same values."""
    stamps = pd.date_range(FIRST_DAY + timedelta(weeks=number), periods=7)
    rng = np.random.default_rng(number)
    wave = 10 + 3 * np.sin(2 * np.pi * stamps.dayofweek.to_numpy() / 7) + shift
    return pd.concat(
        [
            pd.DataFrame({"unique_id": name, "ds": stamps, "y": k * wave + rng.normal(size=7)})
            for name, k in (("a", 1.0), ("b", 2.0))
        ],
        ignore_index=True,
    )


def settle(deployment: Deployment, pipeline: str, *, seconds: float) -> None:
    """Wait until two looks in a row, of files that stood still, found nothing to do."""
    begun = time.time()
    deadline = time.monotonic() + seconds
    state: object = None
    while time.monotonic() < deadline:
        with suppress(BackfillError):  # the webserver was killed
            state = _unsettled(deployment, pipeline, begun)
            if state is None:
                return
        time.sleep(1)
    raise AssertionError(f"not settled after {seconds:.0f} s: {state}\n{deployment.tail()}")


def _unsettled(deployment: Deployment, pipeline: str, since: float) -> object:
    """What still goes on; None if nothing does."""
    runs = runs_of(deployment, pipeline)
    if going := [run for run in runs if run["status"] not in _FINAL]:
        return going
    sensor = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "ts-forecast",
        "sensorName": f"{pipeline}_arrivals",
    }
    answer = deployment.webserver.query(_TICKS, sensor=sensor)["sensorOrError"]
    ticks = answer["sensorState"]["ticks"]
    is_idle = len(ticks) == 2 and all(
        tick["timestamp"] > since
        and tick["status"] == "SKIPPED"
        and "may still be being written" not in (tick["skipReason"] or "")
        and "that were asked for" not in (tick["skipReason"] or "")
        for tick in ticks
    )
    return None if is_idle else ticks


def runs_of(deployment: Deployment, pipeline: str) -> list[dict[str, Any]]:
    """The runs that the pipeline's sensor asked for, tags as a dictionary, newest first."""
    tags = [{"key": "ts_forecast/arrivals", "value": pipeline}]
    found = deployment.webserver.query(_RUNS, tags=tags)["runsOrError"]["results"]
    return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def wait_for_run(deployment: Deployment, pipeline: str, *, after: int, seconds: float) -> None:
    """Until the sensor has asked for more than ``after`` runs."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(BackfillError):
            if len(runs_of(deployment, pipeline)) > after:
                return
        assert time.monotonic() < deadline, deployment.tail()
        time.sleep(0.5)


def assert_none_missed(deployment: Deployment, pipeline: str, files: Collection[Path]) -> None:
    """Every quarter of the files has all of its assets, in Dagster's own books."""
    quarters = quarters_of(files)
    assets = [path for path in deployment.webserver.asset_keys(pipeline) if path[1] != "champion"]
    of_data = [path for path in assets if path[1] in ("datasets", "dataset_features")]
    others = [path for path in assets if path not in of_data]
    assert incomplete(deployment.webserver, of_data, quarters) == []
    # Before the first there is no history to train on.
    assert incomplete(deployment.webserver, others, quarters[1:]) == []


def quarters_of(files: Collection[Path]) -> list[Quarter]:
    """From the first to the last that has a row."""
    days = pd.concat(pd.read_csv(path, usecols=["ds"], parse_dates=["ds"]) for path in files)["ds"]
    return list(quarter_range(Quarter.of(days.min()), Quarter.of(days.max())))


def assert_nothing_twice(deployment: Deployment, pipeline: str) -> None:
    """No work was done twice: not by runs, and not by what they computed."""
    runs = runs_of(deployment, pipeline)
    done = Counter(run["tags"]["ts_forecast/work"] for run in runs if run["status"] == "SUCCESS")
    assert {key: count for key, count in done.items() if count > 1} == {}
    repeated = deployment.rows(
        "SELECT run_name, run_fingerprint, count(*) FROM runs JOIN experiments "
        "USING (experiment_id) WHERE experiment_name = :name AND runs.status = 'completed' "
        "GROUP BY 1, 2 HAVING count(*) > 1",
        name=pipeline,
    )
    assert repeated == []
    left = deployment.rows("SELECT run_id, run_name FROM runs WHERE status = 'running'")
    assert left == []


_SEEN = {
    "datasets": (
        "SELECT quarter_start, num_rows, num_columns, num_time_series, start_date, end_date, "
        "missing_values_count, duplicate_rows_count, column_types::text, "
        "metadata->>'content_hash' FROM current_datasets"
    ),
    "dataset_features": (
        "SELECT quarter_start, feature_name, feature_type, f.min_value, f.max_value, mean_value, "
        "median_value, std_value, num_unique_values, missing_count, feature_role, "
        "correlation_with_target FROM current_datasets JOIN dataset_features f USING (dataset_id)"
    ),
    "predictions": (
        "SELECT model_name, unique_id, prediction_date, horizon, predicted_value, actual_value, "
        "lower_bound, upper_bound, confidence_level, quantiles FROM predictions "
        "JOIN models USING (model_id) JOIN experiments e ON e.experiment_id = "
        "predictions.experiment_id WHERE experiment_name = :name"
    ),
    "metrics": (
        "SELECT r.quarter_start, r.tags->>'kind', m.model_name, metric_name, metric_step, "
        "dataset_type, evaluation_context, metric_value FROM standing r "
        "JOIN metrics USING (run_id) LEFT JOIN models m ON m.model_id = metrics.model_id"
    ),
    "metric_summaries": (
        "SELECT s.quarter_start, model_name, metric_name, dataset_type, horizon_bucket, min_value, "
        "max_value, mean_value, median_value, std_value, q1_value, q3_value, skill, sample_count "
        "FROM standing r JOIN metric_summaries s USING (run_id) JOIN models USING (model_id)"
    ),
}
_STANDING = """
WITH current_datasets AS (
  SELECT DISTINCT ON (quarter_start) * FROM datasets WHERE dataset_type = 'processed'
  AND dataset_name LIKE :name || '/%' ORDER BY quarter_start, dataset_id DESC
), standing AS (
  -- Models of data that were restated stay on record, in case these are taken back; the newest counts.
  SELECT DISTINCT ON (runs.quarter_start, runs.tags->>'kind', runs.tags->>'model') runs.* FROM runs
  JOIN experiments USING (experiment_id) WHERE experiment_name = :name
  AND runs.status = 'completed' AND runs.deleted_at IS NULL
  ORDER BY runs.quarter_start, runs.tags->>'kind', runs.tags->>'model', end_time DESC, run_id DESC
)
"""


def contents(engine: Engine, pipeline: str) -> dict[str, list[Any]]:
    """What readers see of a pipeline, in order, without keys and times."""
    with engine.connect() as connection:
        return {
            table: sorted(
                (
                    tuple(map(_comparable, row))
                    for row in connection.execute(text(query), {"name": pipeline})
                ),
                key=repr,
            )
            for table, query in ((name, _STANDING + sql) for name, sql in _SEEN.items())
        }


def _comparable(value: Any) -> Any:
    """The same for values that differ by the order of additions."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, list):
        return tuple(map(_comparable, value))
    return value


def rebuilt(
    engine: Engine, settings: Settings, pipeline: Pipeline, files: Collection[Path]
) -> dict[str, list[Any]]:
    """``contents`` of a fresh database into which these files went all at once, without Dagster."""
    place = settings.data_dir / "raw" / pipeline.name
    place.mkdir(parents=True)
    for path in files:
        shutil.copy(path, place)
    quarters = quarters_of(files)
    ingest_quarters(engine, settings, pipeline, quarters)
    for quarter in quarters:
        in_transaction(engine, partial(_profile, pipeline, quarter))
    for quarter in quarters[1:]:
        for spec in pipeline.models:
            train_quarter(engine, settings, pipeline, spec, quarter)
        forecast_quarter(engine, settings, pipeline, quarter)
        score_quarter(engine, settings, pipeline, quarter)
    return contents(engine, pipeline.name)


def _profile(pipeline: Pipeline, quarter: Quarter, session: Session) -> None:
    dataset = current_dataset(session, pipeline, quarter)
    assert dataset is not None
    profile_dataset(session, dataset, pipeline)
