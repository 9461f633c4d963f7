"""``ts-forecast db``: the schema's revisions. The daily, weekly and monthly operations lie beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ts_forecast.db.database import Database

app = typer.Typer(help="The database: its schema, health and upkeep.", no_args_is_help=True)


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="A revision, or head.")] = "head",
) -> None:
    """Bring the schema up to a revision."""
    from ts_forecast.db import migrate

    with opened() as database:
        migrate.upgrade(database.engine, revision)
        typer.echo(f"{database.address} is at revision {migrate.current(database.engine)}")


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, or base.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the schema back to a revision; what its newer tables hold is lost."""
    from ts_forecast.db import migrate

    with opened() as database:
        if not yes:
            typer.confirm(f"Drop what is newer than {revision} in {database.address}?", abort=True)
        migrate.downgrade(database.engine, revision)
        typer.echo(
            f"{database.address} is at revision {migrate.current(database.engine) or 'base'}"
        )


@app.command()
def current() -> None:
    """Print the schema's revision; exit code 1 if it is not the newest."""
    from ts_forecast.db import migrate

    with opened() as database:
        here = migrate.current(database.engine)
        newest = migrate.head()
    typer.echo(f"{here or 'base'}{' (head)' if here == newest else f' (head is {newest})'}")
    if here != newest:
        raise typer.Exit(1)


@app.command()
def history() -> None:
    """List the revisions, newest first; * marks the database's."""
    from ts_forecast.db import migrate

    with opened() as database:
        for step in migrate.history(database.engine):
            typer.echo(f"{'*' if step.is_current else ' '} {step.revision}  {step.summary}")


@contextmanager
def opened() -> Iterator[Database]:
    """The deployment's database, for one command."""
    from ts_forecast.db.database import open_database
    from ts_forecast.settings import load_settings

    database = open_database(load_settings())
    try:
        yield database
    finally:
        database.dispose()
