"""``ts-forecast config``: the settings that live in the database. Secrets are written, never shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ts_forecast.configuration.kinds import Kind

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ts_forecast.configuration.values import Setting
    from ts_forecast.settings import Settings

app = typer.Typer(help="Settings that live in the database.", no_args_is_help=True)

T = TypeVar("T")
_HIDDEN = "********"


@app.command("list")
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List all settings; of secrets only that they are there."""
    from ts_forecast.configuration.values import list_settings

    settings = _transact(lambda session, _: list_settings(session))
    if as_json:
        typer.echo(json.dumps([_plain(item) for item in settings], ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "type", "category", "description")
    for item in settings:
        cells = (item.key, _shown(item), item.kind, item.category or "", item.description or "")
        # Text: what stands in brackets is no markup.
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


@app.command("get")
def get(key: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Print a setting's value. Of a secret: whether the keys of the environment decrypt it."""
    from ts_forecast.configuration.secrets import Keyring
    from ts_forecast.configuration.values import get_secret, get_setting

    def read(session: Session, settings: Settings) -> Setting:
        found = get_setting(session, key)
        if found.is_secret:
            get_secret(session, key, Keyring(settings))
        return found

    typer.echo(_shown(_transact(read)))


@app.command("set")
def set_one(
    key: Annotated[str, typer.Argument(help="Its name.")],
    value: Annotated[
        str | None, typer.Argument(help="Its value; after -- where it starts with a dash.")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Encrypt it; the value comes from a prompt or stdin.")
    ] = False,
    kind: Annotated[
        Kind | None, typer.Option("--type", help="Of a new setting; default: string.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    category: Annotated[str | None, typer.Option(help="Groups settings.")] = None,
    pattern: Annotated[
        str | None, typer.Option("--regex", help="What the whole value must match, from now on.")
    ] = None,
) -> None:
    """Write a setting; type, pattern, secrecy and description stay unless they are given."""
    from ts_forecast.configuration.secrets import Keyring
    from ts_forecast.configuration.values import parse, set_value

    if secret and value is not None:
        raise typer.BadParameter(
            "a secret is not given on the command line, where others can read it; leave VALUE out "
            "and type it at the prompt, or pipe it in",
            param_hint="--secret",
        )
    if not secret and value is None:
        raise typer.BadParameter("give a value", param_hint="VALUE")
    text = value if value is not None else _ask(key)

    def write(session: Session, settings: Settings) -> None:
        set_value(
            session,
            key,
            parse(session, key, text, kind),
            kind=kind,
            keyring=Keyring(settings) if secret else None,
            description=description,
            category=category,
            pattern=pattern,
        )

    _transact(write)
    typer.echo(f"{key} is set")


@app.command()
def unset(key: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Delete a setting."""
    from ts_forecast.configuration.values import unset_value

    _transact(lambda session, _: unset_value(session, key))
    typer.echo(f"{key} is unset")


@app.command("rotate-keys")
def rotate() -> None:
    """Encrypt all secrets with the first key of TS_FORECAST_SECRET_KEYS, in one transaction."""
    from ts_forecast.configuration.secrets import Keyring, rotate_keys

    count = _transact(lambda session, settings: rotate_keys(session, Keyring(settings)))
    typer.echo(f"{count} secrets are encrypted with the newest key; older ones may go")


@app.command("new-key")
def make_key() -> None:
    """Print a fresh key, to put first in TS_FORECAST_SECRET_KEYS."""
    from ts_forecast.configuration.secrets import new_key

    typer.echo(new_key())


def _ask(key: str) -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt(key, hide_input=True, confirmation_prompt=True)
        return answer
    # The newline that echo and files end with is not the secret's.
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def _shown(setting: Setting) -> str:
    if setting.is_secret:
        return _HIDDEN
    if isinstance(setting.value, str):
        return setting.value
    return json.dumps(setting.value, ensure_ascii=False)


def _plain(setting: Setting) -> dict[str, object]:
    return {
        "key": setting.key,
        "value": _HIDDEN if setting.is_secret else setting.value,
        "type": setting.kind,
        "secret": setting.is_secret,
        "category": setting.category,
        "description": setting.description,
        "regex": setting.pattern,
        "updated_at": setting.updated_at.isoformat(),
    }


def _transact(work: Callable[[Session, Settings], T]) -> T:
    from ts_forecast.db.database import open_database
    from ts_forecast.db.migrate import check_revision
    from ts_forecast.db.retry import in_transaction
    from ts_forecast.settings import load_settings

    settings = load_settings()
    database = open_database(settings)
    try:
        check_revision(database.engine)
        return in_transaction(database.engine, lambda session: work(session, settings))
    finally:
        database.dispose()
