"""``ts-forecast pipelines``: the pipeline files of the deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Pipeline files.", no_args_is_help=True)


@app.command("list")
def list_pipelines() -> None:
    """List the pipelines with their frequency, horizon and models."""
    from rich.console import Console
    from rich.table import Table

    from ts_forecast.pipeline_file import load_pipelines
    from ts_forecast.settings import load_settings

    table = Table("pipeline", "frequency", "horizon", "step", "from", "to", "models")
    for pipeline in load_pipelines(load_settings().pipelines_dir).values():
        table.add_row(
            pipeline.name,
            pipeline.frequency,
            str(pipeline.horizon),
            str(pipeline.step),
            str(pipeline.start),
            str(pipeline.end or ""),
            ", ".join(model.name for model in pipeline.models),
        )
    Console().print(table)


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Default: all of the deployment.")
    ] = None,
) -> None:
    """Check pipeline files, and the columns of their sources where the sources are there."""
    from ts_forecast.operations.pipeline_check import check_pipeline_file
    from ts_forecast.settings import load_settings

    settings = load_settings()
    paths = files or sorted(
        path for path in settings.pipelines_dir.glob("*") if path.suffix in (".yaml", ".yml")
    )
    failures = 0
    for path in paths:
        problem = check_pipeline_file(path, settings)
        failures += problem is not None
        typer.echo(f"{'✗' if problem else '✓'} {path}{f': {problem}' if problem else ''}")
    if failures:
        raise typer.Exit(2)
