"""The ``ts-forecast`` command: what it is made of, and how errors end.

The commands themselves are in ``commands``; they import what they need when they run, so that
``--help`` is there at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ts_forecast.commands import (
    configuration,
    database,
    database_archive,
    database_daily,
    database_partitions,
    database_report,
    database_schema,
    database_upkeep,
    demo,
    diagnose,
    one_shot,
    pipelines,
    registry,
    reporting,
    results,
    search_spaces,
    serving,
)
from ts_forecast.errors import DatabaseError, SettingsError, TsForecastError

_EPILOG = (
    "Exit codes: 0 done; 1 a step failed or a check found something; 2 wrong configuration, pipeline "
    "file or command line; 3 bad input data; 4 training, forecasting or scoring failed; 5 the database; "
    "6 no device; 130 interrupted."
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
app.command()(serving.backfill)
app.command()(one_shot.run)
app.command()(results.leaderboard)
app.command()(results.forecasts)
app.command()(reporting.report)
app.command()(diagnose.doctor)
app.command()(diagnose.version)
database.app.command()(database_schema.roles)
database.app.command()(database_schema.objects)
for operation in (*database_daily.COMMANDS, *database_upkeep.COMMANDS, database_report.report):
    database.app.command()(operation)
for step in database_archive.COMMANDS:
    database_partitions.app.command()(step)
database.app.add_typer(database_partitions.app, name="partitions")
app.add_typer(database.app, name="db")
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(registry.app, name="registry")
app.add_typer(search_spaces.app, name="search-spaces")
app.add_typer(configuration.app, name="config")


class _Errors:
    """How errors are shown, as the command line says."""

    with_traceback = False


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error arose.")] = False,
) -> None:
    _Errors.with_traceback = debug
    # Help needs neither settings nor logs.
    if "--help" not in sys.argv:
        _install_logs()


def _install_logs() -> None:
    from ts_forecast.logs.setup import install
    from ts_forecast.settings import load_settings

    try:
        install(load_settings())
    except SettingsError:
        # The command says so, if it needs them; `doctor` explains them.
        return


def main() -> None:
    """Run the command line; an error becomes one line and its exit code."""
    try:
        app()
    except Exception as error:
        known = _as_ours(error)
        if known is None or _Errors.with_traceback:
            raise
        _print_error(known)
        sys.exit(known.exit_code)


def _as_ours(error: Exception) -> TsForecastError | None:
    """Errors of the database among them: it is someone else's part, not a fault of ours."""
    if isinstance(error, TsForecastError):
        return error
    # Imported by whoever raised it; `--help` does without.
    library = sys.modules.get("sqlalchemy.exc")
    if library is not None and isinstance(error, library.DBAPIError):
        return DatabaseError(f"The database refused: {error.orig}")
    return None


def _print_error(error: TsForecastError) -> None:
    from rich.console import Console
    from rich.text import Text

    # A Text, for what stands in brackets is no markup.
    line = Text(" ".join(str(error).split()), style="red")
    Console(stderr=True).print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
