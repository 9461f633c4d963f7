"""``ts-forecast run``: forecast one file, once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ts_forecast.operations.one_shot import OneShot


class Backend(StrEnum):
    """Where models are fitted."""

    cpu = "cpu"
    gpu = "gpu"


class Format(StrEnum):
    """What a file is, where its name does not say."""

    csv = "csv"
    parquet = "parquet"
    json = "json"
    feather = "feather"


class Filling(StrEnum):
    """What is done about missing values."""

    interpolate = "interpolate"
    ffill = "ffill"
    error = "error"


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
    target_column: Annotated[
        str | None,
        typer.Option(help="Default: guessed; 'QTY_{unique_id}' for one column a series."),
    ] = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Default: by the name's ending.")
    ] = None,
    missing: Annotated[Filling, typer.Option(help="What to do about gaps.")] = Filling.interpolate,
    levels: Annotated[str, typer.Option(help="Interval levels in percent, e.g. 80,95.")] = "",
    max_steps: Annotated[
        int | None, typer.Option(help="Training steps of neural models.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the fits.", min=0)] = 1,
    force: Annotated[bool, typer.Option(help="Fit again what is on record.")] = False,
) -> None:
    """Forecast a file with some models and horizons, and measure them on its last horizon.

    Writes predictions.parquet, predictions.csv and metrics.csv, and records runs, models, metrics and
    forecasts in the database. Models that were fitted on the same data before are not fitted again.
    """
    from rich.console import Console

    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.operations.columns import infer_columns
    from ts_forecast.operations.one_shot import Request, forecast_file
    from ts_forecast.operations.one_shot_models import use_backend
    from ts_forecast.settings import load_settings

    console = Console(highlight=False, soft_wrap=True)
    settings = load_settings()
    path = data_path.absolute()
    steps, percents = _numbers(horizons, "--horizons"), _numbers(levels, "--levels")
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    for option, given in (("--horizons", steps), ("--models", names)):
        if not given:
            raise typer.BadParameter("name at least one", param_hint=option)
    columns = infer_columns(
        path,
        kind=file_format.value if file_format else None,
        time_column=time_column,
        id_column=id_column,
        target_column=target_column,
        frequency=frequency,
    )
    if columns.guessed:
        console.print(f"guessed: {', '.join(columns.guessed)}", markup=False)
    request = Request(
        path=path,
        columns=columns,
        models=names,
        horizons=steps,
        output_dir=output_dir.absolute()
        if output_dir
        else settings.output_dir / "runs" / path.stem,
        parameters={} if max_steps is None else {"max_steps": max_steps},
        levels=percents,
        seed=seed,
        missing=missing.value,
        force=force,
    )
    # Wrong models and horizons are refused before a server is started for them.
    for step in steps:
        request.pipeline(step)
    use_backend(backend.value, settings)
    database = open_database(settings)
    try:
        migrate.upgrade(database.engine)
        with console.status("reading") as status:
            result = forecast_file(database.engine, settings, request, progress=status.update)
    finally:
        database.engine.dispose()
    if result.missing:
        console.print(f"{result.missing} missing values were filled ({missing.value})")
    console.print(_accuracy(result))
    for file in result.files:
        console.print(f"written: {file}", markup=False)
    if result.reused:
        console.print(f"{result.reused} models were on record and not fitted again")


def _accuracy(result: OneShot) -> Table:
    """The metrics that fit a terminal; those of quantiles are in the file."""
    from rich.table import Table

    wide = result.metrics.pivot(index=["horizon", "model"], columns="metric", values="value")
    shown = [name for name in ("mae", "rmse", "smape", "mase", "skill") if name in wide]
    wide = wide[shown].sort_values(["horizon", "mae"])
    table = Table(title="On the last horizon, which was held out", title_justify="left")
    table.add_column("horizon", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for row in wide.reset_index().itertuples(index=False):
        values = (f"{value:.4g}" if value == value else "" for value in row[2:])
        table.add_row(str(row[0]), str(row[1]), *values)
    return table


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers", param_hint=option
        ) from None
