"""``ts-forecast db roles`` and ``db objects``: what the schema holds beside its revisions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine


def roles() -> None:
    """Make the roles and grant what they need; exit code 1 if the server's administrator must help."""
    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.db.engine import transaction
    from ts_forecast.db.roles import ensure_roles
    from ts_forecast.settings import load_settings

    database = open_database(load_settings())
    try:
        migrate.check_revision(database.engine)
        with transaction(database.engine) as session:
            states = ensure_roles(session.connection())
    finally:
        database.engine.dispose()
    for state in states:
        word = "made" if state.made else "there" if state.exists else "missing"
        typer.echo(f"{state.name}: {word}")
    remedies = [state.remedy for state in states if state.remedy]
    if remedies:
        typer.echo("Have the server's administrator run, and then run this again:", err=True)
        for remedy in remedies:
            typer.echo(f"  {remedy}", err=True)
        raise typer.Exit(1)


def objects() -> None:
    """Print, as Markdown, where each object of the database design is made.

    Upgrades an empty database of its own on the deployment's server, revision by revision.
    """
    from ts_forecast.operations.design_objects import as_markdown, origins

    with _empty_database() as engine:
        typer.echo(as_markdown(origins(engine)), nl=False)


@contextmanager
def _empty_database() -> Iterator[Engine]:
    from sqlalchemy import text

    from ts_forecast.db.database import open_database
    from ts_forecast.db.engine import create_engine
    from ts_forecast.settings import load_settings

    server = open_database(load_settings()).engine
    name = f"objects_{secrets.token_hex(4)}"
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        engine = create_engine(server.url.set(database=name).render_as_string(hide_password=False))
        try:
            yield engine
        finally:
            engine.dispose()
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
