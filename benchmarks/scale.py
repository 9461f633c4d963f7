"""How time and memory of each stage grow with the number of series.

``python -m benchmarks.scale --series 100,1000,10000`` makes two years of daily sales and takes one
quarter through every stage, each in a process of its own, as Dagster's steps are: ingest (of the
window too), profile, train (NHITS, few steps), predict, publish, score. Prints seconds and the peak
resident memory of each stage's process tree, and the slope: 1 is linear. The embedded server's memory,
whose shared buffers belong to all of its processes, is told apart.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import typer
from pyarrow.csv import write_csv
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from ts_forecast.cores import usable_cores
from ts_forecast.db import migrate
from ts_forecast.db.embedded import start_embedded, stop_embedded
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

_QUARTER = Quarter(2024, 4)
_START, _END = "2023-01-01", "2024-12-31"
_LOOK_SECONDS = 0.05
console = Console()


def ingest(engine: Engine, settings: Settings, pipeline: Pipeline) -> None:
    """The quarter and its window."""
    from ts_forecast.datasets.quarter import ingest_quarters

    quarters = [*pipeline.window(_QUARTER), _QUARTER]
    ingest_quarters(engine, settings, pipeline, quarters)


def profile(engine: Engine, settings: Settings, pipeline: Pipeline) -> None:
    """One quarter's columns."""
    from ts_forecast.datasets.profile import profile_dataset
    from ts_forecast.datasets.quarter import current_dataset

    with transaction(engine) as session:
        dataset = current_dataset(session, pipeline, _QUARTER)
        assert dataset is not None
        profile_dataset(session, dataset, pipeline)


def train(engine: Engine, settings: Settings, pipeline: Pipeline) -> None:
    """Every model of the quarter."""
    from ts_forecast.evaluation.calibration import calibrate
    from ts_forecast.training.quarter import train_quarter

    for spec in pipeline.models:
        train_quarter(engine, settings, pipeline, spec, _QUARTER, calibrate=calibrate)


def predict(engine: Engine, settings: Settings, pipeline: Pipeline) -> None:
    """Forecasts of all cutoffs, published."""
    from ts_forecast.predictions.quarter import forecast_quarter

    forecast_quarter(engine, settings, pipeline, _QUARTER)


def publish(engine: Engine, settings: Settings, pipeline: Pipeline) -> None:
    """The slice once more with other values, so that it is swapped."""
    import pyarrow.compute as pc

    from ts_forecast.predictions.slice import publish_slice, read_slice

    run_id = _predict_run(engine)
    rows = read_slice(engine, experiment_id=1, quarter=_QUARTER)
    place = rows.column_names.index("predicted_value")
    moved = pc.add(rows["predicted_value"], pa.scalar(0.001))
    rows = rows.set_column(place, rows.schema.field(place), moved)
    publish_slice(engine, experiment_id=1, run_id=run_id, quarter=_QUARTER, rows=rows)


def score(engine: Engine, settings: Settings, pipeline: Pipeline) -> None:
    """All metrics of the quarter."""
    from ts_forecast.evaluation.quarter import score_quarter

    score_quarter(engine, settings, pipeline, _QUARTER)


_STAGES: dict[str, Callable[[Engine, Settings, Pipeline], None]] = {
    "ingest": ingest,
    "profile": profile,
    "train": train,
    "predict": predict,
    "publish": publish,
    "score": score,
}


def main(
    series: Annotated[str, typer.Option(help="Numbers of series, by commas.")] = "100,1000,10000",
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 20,
    step: Annotated[int, typer.Option(min=1, help="Days between two cutoffs.")] = 7,
    limit_gb: Annotated[float, typer.Option(help="Memory that the largest must fit in.")] = 8.0,
) -> None:
    """Measure and print a table; exit code 1 where the memory is not enough."""
    counts = [int(count) for count in series.split(",")]
    figures = {count: _measure(count, steps, step) for count in counts}
    columns = [f"{count:,}" for count in counts]
    table = Table(
        title=f"load {os.getloadavg()[0]:.1f} on {usable_cores()} cores; slope: 1 is linear"
    )
    for heading in ("stage", *(f"{c} s" for c in columns), "slope", *(f"{c} MB" for c in columns)):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in next(iter(figures.values())):
        cells = [figures[count][stage] for count in counts]
        times, memory = [cell[0] for cell in cells], [cell[1] for cell in cells]
        slope = ""
        if len(counts) > 1 and times[-2] > 0:
            slope = f"{math.log(times[-1] / times[-2]) / math.log(counts[-1] / counts[-2]):.2f}"
        shown = (f"{value / 2**20:,.0f}" for value in memory)
        table.add_row(stage, *(f"{value:.2f}" for value in times), slope, *shown)
    console.print(table)
    peak = max(memory for stages in figures.values() for _, memory in stages.values()) / 2**30
    console.print(f"Peak of a stage's process, imports included: {peak:.2f} of {limit_gb} GB")
    raise typer.Exit(int(peak > limit_gb))


def _measure(series: int, steps: int, step: int) -> dict[str, tuple[float, int]]:
    """Seconds and peak bytes of every stage; the last entry is the server's memory."""
    with tempfile.TemporaryDirectory(prefix="ts-forecast-") as folder:
        settings = Settings(
            _env_file=None,
            home=Path(folder) / "home",
            data_dir=Path(folder) / "data",
            model_dir=Path(folder) / "models",
            output_dir=Path(folder) / "outputs",
            enable_gpu=False,
        )
        (settings.data_dir / "raw").mkdir(parents=True)
        write_csv(_sales(series), settings.data_dir / "raw" / "sales.csv")
        engine = create_engine(start_embedded(settings))
        try:
            migrate.upgrade(engine)
            engine.dispose()
            figures = {}
            for stage in _STAGES:
                figures[stage] = _in_a_process(stage, settings, steps, step)
                seconds, memory = figures[stage]
                told = f"{series:,} series, {stage}: {seconds:.2f} s, {memory / 2**20:,.0f} MB"
                console.print(told, highlight=False)
            return figures
        finally:
            engine.dispose()
            stop_embedded(settings)


def _in_a_process(stage: str, settings: Settings, steps: int, step: int) -> tuple[float, int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(stage, settings, steps, step, theirs))
    process.start()
    theirs.close()
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_LOOK_SECONDS):
            peak = max(peak, _memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seconds, own_peak = ours.recv()
    except EOFError:
        raise typer.Exit(1) from None
    finally:
        process.join()
        done.set()
        watcher.join()
    return seconds, max(peak, own_peak)


def _run(
    stage: str, settings: Settings, steps: int, step: int, answer: Connection[Any, Any]
) -> None:
    import resource

    import torch

    torch.set_num_threads(1)
    if stage in ("train", "predict"):
        import neuralforecast  # noqa: F401 — a forked step has it already
    engine = create_engine(start_embedded(settings))
    try:
        begun = time.perf_counter()
        _STAGES[stage](engine, settings, _pipeline(steps, step))
        seconds = time.perf_counter() - begun
    finally:
        engine.dispose()
    answer.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def _memory(pid: int | None) -> int:
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in tree)
    except psutil.NoSuchProcess:
        return 0


def _predict_run(engine: Engine) -> int:
    from sqlalchemy import text

    with engine.connect() as connection:
        query = text("SELECT max(run_id) FROM runs WHERE metadata ? 'content_hash'")
        return int(connection.execute(query).scalar_one())


def _pipeline(steps: int, step: int) -> Pipeline:
    return parse_pipeline(
        {
            "name": "scale",
            "source": {
                "files": "raw/sales.csv",
                "id_column": "unique_id",
                "time_column": "ds",
                "target_column": "y",
            },
            "frequency": "D",
            "horizon": 14,
            "step": step,
            "start": _START,
            "end": _END,
            "window_quarters": 7,
            "levels": [80],
            "exogenous": {"future": ["promotion"], "calendar": ["weekday"]},
            "models": [
                {
                    "model": "NHITS",
                    "parameters": {
                        "input_size": 56,
                        "max_steps": steps,
                        "windows_batch_size": 256,
                        "scaler_type": "standard",
                    },
                },
                "SeasonalNaive",
            ],
        },
        origin="benchmarks/scale.py",
    )


def _sales(series: int) -> pa.Table:
    rng = np.random.default_rng(1)
    days = pd.date_range(_START, _END, freq="D")
    week = 10 + 3 * np.sin(2 * np.pi * days.dayofweek.to_numpy() / 7)
    promotion = (rng.random((series, len(days))) < 0.1).astype(int)
    y = week * rng.uniform(1, 5, size=(series, 1)) + 4 * promotion
    y += rng.standard_normal((series, len(days)))
    names = pa.array([f"product {i:05d}" for i in range(series)])
    return pa.table(
        {
            "unique_id": names.take(pa.array(np.repeat(np.arange(series), len(days)))),
            "ds": pa.array(np.tile(days.to_numpy().astype("datetime64[D]"), series)),
            "y": np.round(y.reshape(-1), 3),
            "promotion": promotion.reshape(-1),
        }
    )


if __name__ == "__main__":
    typer.run(main)
