"""The ``ts-forecast`` command: what it is made of, and how errors end.

The commands themselves are in ``commands``; they import what they need when they run, so that
``--help`` is there at once.
"""

from __future__ import annotations

import sys

import typer

from ts_forecast.commands import database, demo, diagnose, one_shot, pipelines, serving

_EPILOG = (
    "Exit codes: 0 done; 1 a step failed or a check found something; 2 wrong configuration, pipeline "
    "file or command line; 3 bad input data; 4 training, forecasting or scoring failed; 5 the database; "
    "6 no device."
)

app = typer.Typer(
    help="Quarter-partitioned forecasts that can be trusted and traced, on Dagster and PostgreSQL.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo.demo)
app.command()(serving.dev)
app.command()(serving.materialize)
app.command()(one_shot.run)
app.command()(diagnose.doctor)
app.command()(diagnose.version)
app.add_typer(database.app, name="db")
app.add_typer(pipelines.app, name="pipelines")


def main() -> None:
    """Run the command line; our errors become one line and their exit code."""
    from ts_forecast.errors import TsForecastError

    try:
        app()
    except TsForecastError as error:
        from rich.console import Console

        Console(stderr=True).print(
            f"[red]{' '.join(str(error).split())}[/red]", soft_wrap=True, markup=True
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
