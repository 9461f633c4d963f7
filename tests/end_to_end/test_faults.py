"""Kill whatever makes a slice, at random moments: readers never see a part of it.

A real deployment on the embedded server, ``materialize`` in a process of its own, and readers that count
all the while. Moments come from a seed that a failure prints.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.end_to_end.problems import content
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db import migrate
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import data_folder, stop_embedded
from ts_forecast.db.engine import create_engine
from ts_forecast.errors import TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.training.quarter import train_quarter

pytestmark = pytest.mark.timeout(400)
REPOSITORY = Path(__file__).parents[2]
QUARTER = Quarter(2023, 2)
SERIES = 150
# Moments are drawn at random: the first says whether it works at all, the others are for `make test-long`.
SEVERAL = [0, *(pytest.param(attempt, marks=pytest.mark.long) for attempt in (1, 2, 3))]
FORECAST = """
import sys
from pathlib import Path
from ts_forecast.db.engine import create_engine
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter
from ts_forecast.settings import load_settings
pipeline, label, url = sys.argv[1:]
forecast_quarter(
    create_engine(url), load_settings(), load_pipeline(Path(pipeline)), Quarter.parse(label), force=True
)
"""


class Readers:
    """Threads that count the slice's rows until they are told to stop."""

    def __init__(self, url: str) -> None:
        self.seen: set[int] = set()
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(3)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        engine = create_engine(self._url)
        while not self._stop.is_set():
            try:
                with engine.connect() as connection:
                    self.seen.add(connection.scalar(text("SELECT count(*) FROM predictions")))
            except DBAPIError:
                pass  # the server is down: readers get an error, never a part
            time.sleep(0.005)
        engine.dispose()


class Shop:
    """A deployment with a trained quarter and a slice of it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            _env_file=None,
            home=folder / "home",
            pipelines_dir=folder / "pipelines",
            data_dir=folder / "data",
            model_dir=folder / "models",
            output_dir=folder / "outputs",
            log_dir=folder / "logs",
        )
        self.file = folder / "pipelines" / "shop.yaml"
        self.file.parent.mkdir(parents=True)
        models = [
            {"model": "MLP", "parameters": {"max_steps": 2, "input_size": 14}},
            "SeasonalNaive",
        ]
        changes = {"models": models, "horizon": 28, "exogenous": {}, "missing": "error"}
        self.file.write_text(yaml.safe_dump(content(**changes)), encoding="utf-8")
        self.pipeline: Pipeline = load_pipeline(self.file)
        self.write(0.0)
        database = open_database(self.settings)
        self.url = database.url.get_secret_value()
        migrate.upgrade(database.engine)
        self.ingest(database.engine)
        for spec in self.pipeline.models:
            train_quarter(database.engine, self.settings, self.pipeline, spec, QUARTER)
        self.rows = forecast_quarter(database.engine, self.settings, self.pipeline, QUARTER).rows
        database.engine.dispose()

    def write(self, shift: float) -> None:
        """The sales of many products; a shift in the quarter restates it and moves the slice."""
        days = pd.date_range("2022-01-01", "2023-06-30")
        rng = np.random.default_rng(4)
        y = rng.normal(size=(SERIES, len(days))) + 10
        y[:, days >= pd.Timestamp("2023-04-10")] += shift
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat([f"p{i:03d}" for i in range(SERIES)], len(days)),
                "ds": np.tile(days, SERIES),
                "y": y.reshape(-1),
            }
        )
        raw = self.settings.data_dir / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        frame.to_csv(raw / "shop.csv", index=False)

    def ingest(self, engine: Engine) -> None:
        ingest_quarters(
            engine, self.settings, self.pipeline, [*self.pipeline.window(QUARTER), QUARTER]
        )

    def forecast_elsewhere(self) -> subprocess.Popen[bytes]:
        """``forecast_quarter`` in a process that can be killed."""
        places = {
            "TS_FORECAST_HOME": self.settings.home,
            "DATA_DIR": self.settings.data_dir,
            "MODEL_DIR": self.settings.model_dir,
            "OUTPUT_DIR": self.settings.output_dir,
        }
        return subprocess.Popen(
            [sys.executable, "-c", FORECAST, str(self.file), QUARTER.label, self.url],
            cwd=REPOSITORY,
            env=os.environ | {name: str(place) for name, place in places.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def again(self) -> int:
        """Materialize once more, as a retry would; the rows that readers see then."""
        database = open_database(self.settings)
        try:
            self.ingest(database.engine)
            outcome = forecast_quarter(database.engine, self.settings, self.pipeline, QUARTER)
            with database.engine.connect() as connection:
                count = connection.scalar(text("SELECT count(*) FROM predictions"))
                running = connection.scalar(
                    text("SELECT count(*) FROM runs WHERE status = 'running'")
                )
                orphans = connection.scalar(
                    text("SELECT count(*) FROM pg_class WHERE relname ~ '_[no][0-9a-f]{8}$'")
                )
        finally:
            database.engine.dispose()
        assert outcome.rows == count
        assert (running, orphans) == (0, 0)
        return int(count)

    def postmaster(self) -> psutil.Process:
        return psutil.Process(
            int((data_folder(self.settings) / "postmaster.pid").read_text().splitlines()[0])
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("faults"))
    yield made
    stop_embedded(made.settings)


def test_slice__definition__is_what_the_rest_of_this_file_counts(shop: Shop) -> None:
    sundays = pd.date_range("2023-02-01", "2023-06-30", freq="W-SUN")
    reached = sum(
        pd.Timestamp("2023-04-01") <= day + pd.Timedelta(days=ahead) < pd.Timestamp("2023-07-01")
        for day in sundays
        for ahead in range(1, 29)
    )
    assert shop.rows == reached * SERIES * 2


@pytest.mark.parametrize("attempt", SEVERAL[:4])
def test_forecast_quarter__step_killed__readers_see_no_part(shop: Shop, attempt: int) -> None:
    shift = 100.0 * (attempt + 1)
    shop.write(shift)
    database = open_database(shop.settings)
    shop.ingest(database.engine)
    database.engine.dispose()
    moment = random.Random(attempt).uniform(0.2, 3.0)
    with Readers(shop.url) as readers:
        step = shop.forecast_elsewhere()
        _wait_for_run(shop)
        time.sleep(moment)
        step.kill()
        step.wait()
        assert shop.again() == shop.rows, f"killed {moment:.2f} s after the run began"

    assert readers.seen == {shop.rows}


@pytest.mark.parametrize("attempt", SEVERAL[:2])
def test_forecast_quarter__database_killed__readers_see_no_part(shop: Shop, attempt: int) -> None:
    shop.write(-100.0 * (attempt + 1))
    database = open_database(shop.settings)
    shop.ingest(database.engine)
    database.engine.dispose()
    moment = random.Random(100 + attempt).uniform(0.2, 2.5)
    with Readers(shop.url) as readers:
        step = shop.forecast_elsewhere()
        _wait_for_run(shop)
        time.sleep(moment)
        shop.postmaster().kill()
        step.wait(timeout=60)
        assert shop.again() == shop.rows, f"killed {moment:.2f} s after the run began"

    assert readers.seen == {shop.rows}


@pytest.mark.long
def test_materialize__run_killed__the_next_one_completes_it(shop: Shop) -> None:
    """The whole Dagster run, with its fork servers and steps: nobody is left, and nothing is half."""
    shop.write(-500.0)
    places = {
        "TS_FORECAST_HOME": shop.settings.home,
        "TS_FORECAST_PIPELINES": shop.settings.pipelines_dir,
        "DATA_DIR": shop.settings.data_dir,
        "MODEL_DIR": shop.settings.model_dir,
        "OUTPUT_DIR": shop.settings.output_dir,
        "LOG_DIR": shop.settings.log_dir,
    }
    command = [sys.executable, "-m", "assets.materialize", "shop"]
    command += ["--from", QUARTER.label, "--to", QUARTER.label]

    log = shop.file.with_name("materialize.log")

    def materialize() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=os.environ | {name: str(place) for name, place in places.items()},
                stdout=output,
                stderr=output,
            )

    with Readers(shop.url) as readers:
        run = materialize()
        _wait_for_run(shop, 120)
        children = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        run.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        assert materialize().wait(timeout=200) == 0, log.read_text()[-3000:]
        assert shop.again() == shop.rows
    assert readers.seen == {shop.rows}


def test_forecast_quarter__files_of_a_model_gone__is_one_clear_error(shop: Shop) -> None:
    database = open_database(shop.settings)
    try:
        with database.engine.connect() as connection:
            path = Path(
                connection.scalar(
                    text("SELECT model_file_path FROM models WHERE model_name = 'MLP' LIMIT 1")
                )
            )
        hidden = path.with_name("hidden")
        path.rename(hidden)
        try:
            with pytest.raises(TsForecastError, match=str(path)):
                forecast_quarter(database.engine, shop.settings, shop.pipeline, QUARTER, force=True)
        finally:
            hidden.rename(path)
        with database.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM predictions")) == shop.rows
    finally:
        database.engine.dispose()


def _wait_for_run(shop: Shop, seconds: float = 60) -> None:
    """Until the other process has begun its run: importing takes it some seconds."""
    engine = create_engine(shop.url)
    deadline = time.monotonic() + seconds
    running = text("SELECT count(*) FROM runs WHERE status = 'running'")
    try:
        while time.monotonic() < deadline:
            with engine.connect() as connection:
                has_begun = bool(connection.scalar(running))
            if has_begun:
                return
            time.sleep(0.02)
    finally:
        engine.dispose()
    raise AssertionError("the forecasting process never began its run")
