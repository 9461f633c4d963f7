"""``ts-forecast demo``: the main job on data that is at hand, from nothing to the UI."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from ts_forecast.db.database import Database
    from ts_forecast.settings import Settings

_HOST = "127.0.0.1"
# The first steps load their libraries on all cores; the training that follows leaves some idle.
_SERVE_AFTER_SECONDS = 20.0
_QUERY = """\
SELECT model_name, unique_id, prediction_date, horizon, predicted_value, actual_value
FROM predictions JOIN models USING (model_id) JOIN experiments e USING (experiment_id)
WHERE e.experiment_name = 'air_passengers' AND prediction_date >= '1960-10-01'
ORDER BY prediction_date, unique_id, model_name, horizon;"""


def demo(
    ui: Annotated[
        bool,
        typer.Option("--ui/--no-ui", help="Serve the UI at the end (UI=0 has the same effect)."),
    ] = True,
    port: Annotated[int, typer.Option(help="Port of the UI.", min=1, max=65535)] = 3000,
) -> None:
    """Forecast six quarters of airline passengers with three models, then serve the UI.

    A second time it finds its work done and only serves.
    """
    from rich.console import Console

    from ts_forecast.commands.serving import announce, in_foreground, require_port, run_module
    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.operations.demo_data import (
        DEMO_PIPELINE,
        DEMO_QUARTERS,
        demo_pipelines,
        write_demo_data,
    )
    from ts_forecast.settings import load_settings

    console = Console(highlight=False, soft_wrap=True)
    is_served = ui and os.environ.get("UI") != "0"
    if is_served:
        require_port(_HOST, port)
    settings = load_settings(pipelines_dir=demo_pipelines())
    pipelines = {"TS_FORECAST_PIPELINES": str(settings.pipelines_dir)}
    console.print(f"data      {write_demo_data(settings)}", markup=False)
    database = open_database(settings)
    with ExitStack() as stack:
        stack.callback(database.engine.dispose)
        migrate.upgrade(database.engine)
        console.print(f"database  {database.address}", markup=False)
        server = _Server(port, pipelines)
        if is_served:
            stack.callback(server.end)
            server.start_in(_SERVE_AFTER_SECONDS)
        first, last = DEMO_QUARTERS
        code = run_module(
            "assets.materialize", DEMO_PIPELINE, "--from", first, "--to", last, **pipelines
        )
        if code != 0:
            raise typer.Exit(code)
        console.print(_accuracy(database))
        _say_where_next(console, settings, database.address, port, is_served)
        if is_served:
            process = server.start()
            announce(f"http://{_HOST}:{port}", console, lambda wait: _ends_within(process, wait))
            raise typer.Exit(in_foreground(process))


class _Server:
    """The UI, which gets ready beside the work and shows it."""

    def __init__(self, port: int, environment: Mapping[str, str]) -> None:
        self._port = port
        self._environment = environment
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None

    def start_in(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self.start)
        self._timer.daemon = True
        self._timer.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it unless it was."""
        from ts_forecast.commands.serving import start_module

        with self._lock:
            if self._process is None:
                self._process = start_module(
                    "assets.serve", "--port", str(self._port), "--quiet", **self._environment
                )
            return self._process

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _accuracy(database: Database) -> Table:
    """MAE and MASE of each model and quarter, their means, and the skill of the mean MAE."""
    from rich.table import Table

    from ts_forecast.db.engine import transaction
    from ts_forecast.evaluation.leaderboard import leaderboard
    from ts_forecast.operations.demo_data import BASELINE, DEMO_PIPELINE
    from ts_forecast.tracking.experiments import experiment_id

    with transaction(database.engine) as session:
        experiment = experiment_id(session, DEMO_PIPELINE)
        boards = {name: leaderboard(session, experiment, metric=name) for name in ("mae", "mase")}
    maes, mases = (
        board.pivot(index="quarter", columns="model", values="mean") for board in boards.values()
    )
    table = Table(title="Mean absolute error, thousand passengers (and MASE)", title_justify="left")
    table.add_column("quarter")
    for model in maes.columns:
        table.add_column(model, justify="right")
    for quarter in maes.index:
        table.add_row(str(quarter), *_cells(maes.loc[quarter], mases.loc[quarter]))
    table.add_section()
    table.add_row("mean", *_cells(maes.mean(), mases.mean()))
    skill = 1 - maes.mean() / maes.mean()[BASELINE]
    cells = ("" if model == BASELINE else f"{skill[model]:+.0%}" for model in maes.columns)
    table.add_row(f"skill against {BASELINE}", *cells)
    return table


def _cells(maes: pd.Series[float], mases: pd.Series[float]) -> list[str]:
    scaled = mases.reindex(maes.index)
    cells = [f"{mae:.1f} ({mase:.2f})" for mae, mase in zip(maes, scaled, strict=True)]
    best = int(maes.argmin())
    cells[best] = f"[bold]{cells[best]}[/bold]"
    return cells


def _say_where_next(
    console: Console, settings: Settings, address: str, port: int, is_served: bool
) -> None:
    from rich.text import Text

    psql = address.replace("postgresql+psycopg", "postgresql").replace(":***", "")
    served = "" if is_served else "  (after `ts-forecast dev`)"
    ui = f"http://{_HOST}:{port}/assets/air_passengers/predictions"
    lines = [
        f"  the UI           {ui}{served}",
        f"  the database     {psql}",
        "                   open it with psql, for example:",
        *(f"                     {line}" for line in _QUERY.splitlines()),
        f"  the files        {settings.data_dir / 'processed'}, {settings.model_dir}",
        f"  the pipeline     {settings.pipelines_dir / 'air_passengers.yaml'}: copy it for your data",
        "  other quarters   ts-forecast materialize air_passengers --from 1957-Q1 --to 1958-Q4",
        f"  any file, once   ts-forecast run --data-path {settings.data_dir}/raw/air_passengers.csv "
        "--models NHITS --horizons 12",
        "  reading          README.md, docs/pipeline-file.md, docs/configuration.md",
    ]
    console.print("\nWhere to look next", style="bold")
    console.print(Text("\n".join(lines)))
