"""What the whole costs over the bare library: a Dagster backfill against a plain script.

``python -m benchmarks.pipeline_overhead --data FOLDER --case nord_pool --slots 1,4`` runs, one after the
other and on the same files, ``bare_script`` and a backfill of all assets in a deployment of its own, and
prints the wall time of the backfill, from launch to the last row, over the script's, with what became
of that time. Sizes are options; a ratio holds for the size and the load that it was measured at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import backfill, lay_out, served
from benchmarks.overhead_cases import NAMES, build_case
from benchmarks.timeline import HEADINGS, Span, last_row, shares, spans_of
from resources.instance import dagster_environment
from resources.preloads import zygote_of
from ts_forecast.cores import thread_environment, usable_cores
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import stop_embedded
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

_SETTLE_SECONDS = 60
_ROOT = Path(__file__).resolve().parents[1]
console = Console()


@dataclass(frozen=True)
class _Backfill:
    seconds: float
    shares: dict[str, float]
    spans: list[Span]
    launched: float
    load: float


def main(
    data: Annotated[Path, typer.Option(help="The folder of the real data sets.", exists=True)],
    case: Annotated[str, typer.Option(help=f"Of {', '.join(NAMES)}.")] = "nord_pool",
    slots: Annotated[str, typer.Option(help="Slots of each backfill, by commas.")] = "1,4",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every model.")] = 1000,
    quarters: Annotated[int, typer.Option(min=1, help="How many quarters.")] = 8,
    series: Annotated[int, typer.Option(min=1, help="Series of the simulated panel.")] = 1000,
    quarters_per_run: Annotated[int, typer.Option(min=1, help="Of the pipeline file.")] = 2,
    threads: Annotated[int, typer.Option(min=0, help="Of the script; 0: torch's default.")] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds of script and backfills.")] = 1,
    timeline: Annotated[bool, typer.Option(help="Print when each step ran.")] = False,
    minutes: Annotated[float, typer.Option(help="Longest time for one side.")] = 120,
) -> None:
    """Measure one case and print its tables."""
    if case not in NAMES:
        raise typer.BadParameter(f"unknown case {case}; known: {', '.join(NAMES)}")
    counts = [int(count) for count in slots.split(",")]
    with tempfile.TemporaryDirectory(prefix="ts-forecast-") as folder:
        source = Path(folder) / f"{case}.csv"
        problem = build_case(
            case, data, source, steps=steps, series=series, quarters_per_run=quarters_per_run
        )
        chosen = problem.quarters(quarters)
        size = f"{case}: {len(problem.definition['models'])} models x {len(chosen)} quarters, "
        size += f"{steps} steps"
        for turn in range(repeat):
            place = Path(folder) / f"script{turn}"
            plain, load = _script(place, problem.definition, source, chosen, threads, minutes)
            console.print(f"script: {plain:.1f} s")
            runs = {}
            for count in counts:
                where = Path(folder) / f"{count}_slots{turn}"
                runs[count] = _ours(where, case, problem.definition, source, chosen, count, minutes)
                shutil.rmtree(where)
                console.print(f"backfill, {count} slots: {runs[count].seconds:.1f} s")
            _print(size, plain, load, threads, runs)
            if timeline:
                for count, run in runs.items():
                    _print_timeline(run, count)


def _script(
    place: Path,
    definition: dict[str, object],
    source: Path,
    quarters: list[Quarter],
    threads: int,
    minutes: float,
) -> tuple[float, float]:
    """Seconds of the plain script, its imports included, and the host's load at its end."""
    place.mkdir(parents=True)
    file = place / "pipeline.yaml"
    file.write_text(yaml.safe_dump(definition), encoding="utf-8")
    labels = [quarter.label for quarter in quarters]
    command = [sys.executable, "-m", "benchmarks.bare_script", file, source, place / "out", *labels]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    if threads:
        environment |= thread_environment(threads)
    begun = time.monotonic()
    with (place / "script.log").open("wb") as log:
        code = subprocess.call(
            [str(part) for part in command],
            cwd=_ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=minutes * 60,
        )
    if code:
        console.print((place / "script.log").read_text(encoding="utf-8")[-4000:], markup=False)
        raise typer.Exit(1)
    return time.monotonic() - begun, os.getloadavg()[0]


def _ours(
    place: Path,
    name: str,
    definition: dict[str, object],
    source: Path,
    quarters: list[Quarter],
    slots: int,
    minutes: float,
) -> _Backfill:
    place.mkdir(parents=True)
    settings = lay_out(place, name, definition, slots)
    shutil.copy(source, settings.data_dir / "raw" / source.name)
    try:
        with served(settings, place) as webserver:
            _settle(settings)
            launched, _ = backfill(webserver, name, quarters, seconds=minutes * 60)
            load = os.getloadavg()[0]
        spans = _spans(settings)
    finally:
        stop_embedded(settings)
    return _Backfill(last_row(spans) - launched, shares(spans, launched), spans, launched, load)


def _settle(settings: Settings) -> None:
    """Wait for the zygote, which comes up after the rest: deployments run for days."""
    zygote = zygote_of(settings)
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not zygote.seems_there() and time.monotonic() < deadline:
        time.sleep(1)


def _spans(settings: Settings) -> list[Span]:
    database = open_database(settings)
    try:
        os.environ.update(dagster_environment(settings, database))
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            return spans_of(instance)
    finally:
        os.environ.pop("DATABASE_URL", None)
        database.dispose()


def _print(size: str, plain: float, load: float, threads: int, runs: dict[int, _Backfill]) -> None:
    table = Table(title=f"{size}; {usable_cores()} cores")
    table.add_column("")
    table.add_column(f"script, {threads or 'default'} threads", justify="right")
    for count in runs:
        table.add_column(f"backfill, {count} slots", justify="right")
    every = list(runs.values())
    table.add_row("seconds", f"{plain:.1f}", *(f"{run.seconds:.1f}" for run in every))
    table.add_row("over the script", "1.00", *(f"{run.seconds / plain:.2f}" for run in every))
    table.add_row("load of the host", f"{load:.1f}", *(f"{run.load:.1f}" for run in every))
    table.add_section()
    for heading in HEADINGS:
        table.add_row(heading, "", *(f"{run.shares[heading]:.1f}" for run in every))
    console.print(table)


def _print_timeline(run: _Backfill, slots: int) -> None:
    table = Table(title=f"{slots} slots: seconds since the launch")
    for heading in ("run", "step", "what", "from", "to"):
        table.add_column(heading, justify="right" if heading in ("from", "to") else "left")
    for span in sorted(run.spans, key=lambda span: span.begin):
        since, until = span.begin - run.launched, span.end - run.launched
        what = (span.run[:8], span.step, span.heading)
        table.add_row(*what, f"{since:.1f}", f"{until:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
