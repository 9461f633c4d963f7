"""``ts-forecast run``: forecast one file, once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Backend(StrEnum):
    """Where models are fitted."""

    cpu = "cpu"
    gpu = "gpu"


def run(
    data_path: Annotated[Path, typer.Option(help="A CSV, Parquet, JSON or Feather file.")],
    models: Annotated[str, typer.Option(help="Comma-separated class names.")] = "NHITS",
    horizons: Annotated[str, typer.Option(help="Comma-separated steps ahead.")] = "24",
    backend: Annotated[Backend, typer.Option(help="Where models are fitted.")] = Backend.cpu,
    output_dir: Annotated[
        Path | None, typer.Option(help="Default: OUTPUT_DIR/runs/<file>.")
    ] = None,
    frequency: Annotated[str | None, typer.Option(help="E.g. h, D, MS; default: guessed.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Default: guessed.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Default: guessed, or one series.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Default: guessed.")] = None,
    levels: Annotated[str, typer.Option(help="Interval levels in percent, e.g. 80,95.")] = "",
    max_steps: Annotated[
        int | None, typer.Option(help="Training steps of neural models.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the fits.", min=0)] = 1,
) -> None:
    """Forecast a file with some models and horizons, and measure them on its last horizon.

    Writes predictions.parquet, predictions.csv and metrics.csv, and records runs, models, metrics and
    forecasts in the database. Models that were fitted on the same data before are not fitted again.
    """
    from rich.console import Console
    from rich.table import Table

    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.operations.columns import infer_columns
    from ts_forecast.operations.one_shot import forecast_file, use_backend
    from ts_forecast.settings import load_settings

    console = Console()
    settings = load_settings()
    steps, percents = _numbers(horizons, "--horizons"), _numbers(levels, "--levels")
    path = data_path.absolute()
    columns = infer_columns(
        path,
        time_column=time_column,
        id_column=id_column,
        target_column=target_column,
        frequency=frequency,
    )
    if columns.guessed:
        console.print(f"guessed: {', '.join(columns.guessed)}", highlight=False)
    use_backend(backend.value)
    parameters: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
    database = open_database(settings)
    try:
        migrate.upgrade(database.engine)
        with console.status("reading") as status:
            result = forecast_file(
                database.engine,
                settings,
                path,
                columns,
                models=[name.strip() for name in models.split(",") if name.strip()],
                horizons=steps,
                output_dir=output_dir or settings.output_dir / "runs" / path.stem,
                parameters=parameters,
                levels=percents,
                seed=seed,
                progress=status.update,
            )
    finally:
        database.engine.dispose()
    wide = result.metrics.pivot(index=["horizon", "model"], columns="metric", values="value")
    table = Table(
        "horizon", "model", *wide.columns, title="On the last horizon, which was held out"
    )
    for row in wide.reset_index().itertuples(index=False):
        table.add_row(str(row[0]), str(row[1]), *(f"{value:.4g}" for value in row[2:]))
    console.print(table)
    for file in result.files:
        console.print(f"written: {file}", highlight=False)
    if result.reused:
        console.print(f"{result.reused} models were on record and not fitted again")


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers", param_hint=option
        ) from None
