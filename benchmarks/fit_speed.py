"""How long one fit takes beside the bare library's, on the same data, in a process of its own each.

``python -m benchmarks.fit_speed --data FOLDER --models NHITS,TiDE --threads 1,3``: Nord Pool's hours, the
fits of ``pipeline_overhead`` without a database, imports and reading left out. Ours has no checkpoints
and no reports; the library has loggers, bars and checkpoints off. MiB are the processes' peaks. That equal
settings give equal losses is for the tests (``tests/training``); here each side has its own defaults.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.overhead_cases import build_case
from ts_forecast.cores import thread_environment, usable_cores

SIDES = ("library", "ours")
_ROOT = Path(__file__).resolve().parents[1]


def main(
    data: Annotated[Path, typer.Option(help="The folder of the real data sets.", exists=True)],
    models: Annotated[str, typer.Option(help="By commas.")] = "NHITS,NBEATSx,TiDE",
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 50,
    threads: Annotated[str, typer.Option(help="Threads of a fit, by commas.")] = "1",
    case: Annotated[
        str, typer.Option(help="Of pipeline_overhead, with these models.")
    ] = "nord_pool",
    rounds: Annotated[
        int, typer.Option(min=1, help="Both sides, this many times; the fastest.")
    ] = 1,
) -> None:
    """Print a table, a row for each model and number of threads."""
    table = Table(title=f"{case}, {steps} steps, {usable_cores()} cores")
    for heading in ("model", "threads", "library s", "ours s", "ratio", "MiB", "MiB ours"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    with tempfile.TemporaryDirectory(prefix="ts-forecast-") as folder:
        source, file = Path(folder) / f"{case}.csv", Path(folder) / f"{case}.yaml"
        problem = build_case(case, data, source, steps=steps, series=100, quarters_per_run=1)
        first = problem.quarters(1)[0].label
        entries = {entry["model"]: entry for entry in problem.definition["models"]}
        for name in models.split(","):
            definition = problem.definition | {"models": [entries[name]]}
            file.write_text(yaml.safe_dump(definition), encoding="utf-8")
            for count in map(int, threads.split(",")):
                best = {side: (float("inf"), 0.0) for side in SIDES}
                for _ in range(rounds):
                    for side in SIDES:
                        best[side] = min(best[side], _measured(side, file, source, first, count))
                library, ours = best["library"], best["ours"]
                table.add_row(
                    *(name, str(count), f"{library[0]:.1f}", f"{ours[0]:.1f}"),
                    *(f"{ours[0] / library[0]:.2f}", f"{library[1]:.0f}", f"{ours[1]:.0f}"),
                )
    table.caption = f"load at the end {os.getloadavg()[0]:.1f}"
    Console().print(table)


def _measured(
    side: str, file: Path, source: Path, quarter: str, threads: int
) -> tuple[float, float]:
    """Seconds and MiB at the peak of a fit in a process of its own."""
    program = f"from benchmarks.fit_speed import run; run({side!r}, *{[str(file), str(source)]}, "
    answer = subprocess.run(
        [sys.executable, "-c", f"{program}{quarter!r})"],
        cwd=_ROOT,
        env=os.environ
        | thread_environment(threads)
        | {"CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        print(answer.stderr[-4000:])
        raise typer.Exit(1)
    seconds, peak = json.loads(answer.stdout.strip().splitlines()[-1])
    return seconds, peak


def run(side: str, file: str, source: str, quarter: str) -> None:
    """Fit one side in this process and print its figures as JSON."""
    import resource

    import pandas as pd
    from neuralforecast import NeuralForecast

    from benchmarks.bare_script import models_of, read
    from ts_forecast.datasets.panel import Panel
    from ts_forecast.pipeline_file import load_pipeline
    from ts_forecast.training.trainer import fit_model

    warnings.simplefilter("ignore")
    definition = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    until = pd.Period(quarter.replace("-", ""), freq="Q").start_time
    oldest = until - pd.DateOffset(months=3 * definition["window_quarters"])
    frame = read(definition, Path(source))
    future = definition.get("exogenous", {}).get("future", [])
    frame = frame[(frame["ds"] >= oldest) & (frame["ds"] < until)]
    frame = frame[["unique_id", "ds", "y", *future]].reset_index(drop=True)
    if side == "library":
        library = NeuralForecast(models=models_of(definition), freq=definition["frequency"])
        begun = time.monotonic()
        library.fit(frame)
    else:
        pipeline = load_pipeline(Path(file))
        panel = Panel.from_frame(frame, pipeline).filled(pipeline.missing)
        begun = time.monotonic()
        fit_model(pipeline, pipeline.models[0], panel)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, peak]))


if __name__ == "__main__":
    typer.run(main)
