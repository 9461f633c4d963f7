"""``ts-forecast demo``: the main job on data that is at hand, from nothing to the UI."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from ts_forecast.db.database import Database


def demo(
    ui: Annotated[
        bool,
        typer.Option("--ui/--no-ui", help="Serve the UI at the end (UI=0 has the same effect)."),
    ] = True,
    port: Annotated[int, typer.Option(help="Port of the UI.", min=1, max=65535)] = 3000,
) -> None:
    """Forecast eight quarters of airline passengers with three models, then serve the UI.

    A second time it finds its work done and only serves.
    """
    from rich.console import Console

    from ts_forecast.commands.serving import run_module
    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.operations.demo_data import DEMO_PIPELINE, DEMO_QUARTERS, write_demo_data
    from ts_forecast.settings import load_settings

    console = Console()
    settings = load_settings()
    console.print(f"data      {write_demo_data(settings)}")
    database = open_database(settings)
    try:
        migrate.upgrade(database.engine)
        console.print(f"database  {database.address}")
        first, last = DEMO_QUARTERS
        code = run_module("assets.materialize", DEMO_PIPELINE, "--from", first, "--to", last)
        if code != 0:
            raise typer.Exit(code)
        console.print(_accuracy(database))
    finally:
        database.engine.dispose()
    _say_where_next(console, database.address, port)
    if ui and os.environ.get("UI") != "0":
        raise typer.Exit(run_module("assets.serve", "--port", str(port)))


def _accuracy(database: Database) -> Table:
    """Mean absolute error of each model and quarter, and its skill over all."""
    from rich.table import Table

    from ts_forecast.db.engine import transaction
    from ts_forecast.evaluation.leaderboard import leaderboard
    from ts_forecast.operations.demo_data import DEMO_PIPELINE
    from ts_forecast.tracking.experiments import experiment_id

    with transaction(database.engine) as session:
        board: pd.DataFrame = leaderboard(session, experiment_id(session, DEMO_PIPELINE))
    errors = board.pivot(index="quarter", columns="model", values="mean")
    table = Table(title="Mean absolute error (thousand passengers)", title_justify="left")
    table.add_column("quarter")
    for model in errors.columns:
        table.add_column(model, justify="right")
    for quarter, row in errors.iterrows():
        best = row.min()
        table.add_row(
            str(quarter), *(f"[bold]{v:.1f}[/bold]" if v == best else f"{v:.1f}" for v in row)
        )
    mean = errors.mean()
    table.add_section()
    table.add_row("mean", *(f"{value:.1f}" for value in mean))
    if "SeasonalNaive" in mean:
        skill = 1 - mean / mean["SeasonalNaive"]
        table.add_row("skill", *(f"{value:+.0%}" for value in skill))
    return table


def _say_where_next(console: object, address: str, port: int) -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    console.print(
        "\n[bold]Where to look next[/bold]\n"
        f"  the UI           http://127.0.0.1:{port}  →  Assets → air_passengers → predictions\n"
        f"  the tables       {address}\n"
        "  the pipeline     pipelines/air_passengers.yaml: copy it for data of your own\n"
        "  other quarters   ts-forecast materialize air_passengers --from 1957-Q1 --to 1958-Q4\n"
        "  any file, once   ts-forecast run --data-path data/raw/air_passengers.csv "
        "--models NHITS --horizons 12"
    )
