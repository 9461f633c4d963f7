"""``ts-forecast leaderboard`` and ``forecasts``: results, for people and their programs.

They read through ``Database.read_engine``: on a replica, where there is one, that may lag behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

_PIPELINE = typer.Argument(help="Name of a pipeline.")
_SHOWN = ["quarter", "model", "mean", "median", "q3", "series", "skill"]


def leaderboard(
    pipeline: Annotated[str, _PIPELINE],
    metric: Annotated[str, typer.Option(help="E.g. mae, mase, crps.")] = "mae",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the models of a pipeline by quarter: the distribution of a metric over its series."""
    from ts_forecast.db.retry import in_transaction
    from ts_forecast.evaluation.leaderboard import leaderboard as compare
    from ts_forecast.tracking.experiments import experiment_id

    with _reading() as engine:
        board = in_transaction(
            engine,
            lambda session: compare(session, experiment_id(session, pipeline), metric=metric),
        )
    if as_json:
        typer.echo(board.to_json(orient="records", indent=2))
        return
    if board.empty:
        typer.echo(f"{pipeline} has no scores by {metric}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*_SHOWN, title=f"{pipeline}: {metric} over series", title_justify="left")
    for row in board[_SHOWN].itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)


def forecasts(
    pipeline: Annotated[str, _PIPELINE],
    quarter: Annotated[str, typer.Argument(help="E.g. 2024-Q1.")],
    series: Annotated[str | None, typer.Option(help="Of this series only.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="A .csv or .parquet file; default: CSV to the terminal.")
    ] = None,
) -> None:
    """Print the latest forecast of each model, series and date in a quarter, with what came."""
    from ts_forecast.db.retry import in_transaction
    from ts_forecast.files import write_whole
    from ts_forecast.predictions.latest import latest_forecasts, latest_forecasts_of
    from ts_forecast.quarters import Quarter
    from ts_forecast.tracking.experiments import experiment_id

    if output is not None and output.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter("its name must end with .csv or .parquet", param_hint="--output")
    with _reading() as engine:
        experiment = in_transaction(engine, lambda session: experiment_id(session, pipeline))
        where = (engine, experiment, Quarter.parse(quarter))
        frame = latest_forecasts(*where) if series is None else latest_forecasts_of(*where, series)
    if output is None:
        frame.to_csv(sys.stdout, index=False)
        return

    def write(draft: Path) -> None:
        if output.suffix == ".csv":
            frame.to_csv(draft, index=False)
        else:
            frame.to_parquet(draft, index=False)

    write_whole(output.absolute(), write)
    typer.echo(f"written: {output} ({len(frame)} rows)")


@contextmanager
def _reading() -> Iterator[Engine]:
    from ts_forecast.db.database import open_database
    from ts_forecast.settings import load_settings

    database = open_database(load_settings())
    try:
        yield database.read_engine
    finally:
        database.dispose()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else ""
    return str(value)
