"""``ts-forecast report``: a quarter on one page that can be sent to people."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer


def report(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    quarter: Annotated[str, typer.Argument(help="E.g. 2024-Q1.")],
    output: Annotated[
        Path | None, typer.Option(help="Put a copy here; default: the stored file alone.")
    ] = None,
) -> None:
    """Write a quarter's accuracy, forecasts, drift, checks and lineage as one HTML file."""
    from ts_forecast.db.database import open_database
    from ts_forecast.errors import PipelineError
    from ts_forecast.files import write_whole
    from ts_forecast.object_cache import fetched
    from ts_forecast.pipeline_file import load_pipelines
    from ts_forecast.quarters import Quarter
    from ts_forecast.reports.page import write_report
    from ts_forecast.settings import load_settings

    settings = load_settings()
    wanted = Quarter.parse(quarter)
    known = load_pipelines(settings.pipelines_dir)
    if pipeline not in known:
        raise PipelineError(
            f"There is no pipeline {pipeline!r} in {settings.pipelines_dir}.",
            remedy=f"Its pipelines: {', '.join(known) or 'none'}.",
        )
    database = open_database(settings)
    try:
        stored = write_report(database.engine, settings, known[pipeline], wanted)
    finally:
        database.dispose()
    if output is not None:
        write_whole(output.absolute(), lambda draft: _copy(fetched(stored.path), draft))
    typer.echo(f"written: {output or stored.path} ({stored.size_bytes / 1024:.0f} kB)")


def _copy(source: Path, draft: Path) -> None:
    shutil.copyfile(source, draft)
