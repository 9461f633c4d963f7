"""``ts-forecast search-spaces``: the stored search spaces that pipeline files name."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ts_forecast.tables import SearchSpace

app = typer.Typer(help="Search spaces that pipeline files name.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="The space's name.")]


@app.command("list")
def list_spaces(
    everything: Annotated[
        bool, typer.Option("--all", help="Those that were deactivated too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the spaces with the model that each is of, and what it searches."""
    from rich.console import Console
    from rich.table import Table

    from ts_forecast.training import search_spaces

    with _session() as session:
        spaces = search_spaces.list_spaces(session, inactive=everything)
    if as_json:
        _print_json([_described(space) for space in spaces])
        return
    table = Table("name", "model", "searches", "active", "changed (UTC)", "description")
    for space in spaces:
        entry = _described(space)
        table.add_row(
            space.space_name,
            space.model_type,
            ", ".join(entry["searches"]),
            "yes" if space.is_active else "no",
            f"{space.updated_at:%Y-%m-%d %H:%M}",
            space.space_description or "",
        )
    Console().print(table)


@app.command()
def show(name: _Name) -> None:
    """Print one space as YAML, as `import` reads it."""
    _export([name], None)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="YAML: {NAME: {model: NHITS, space: {...}}}.")],
) -> None:
    """Bring in the spaces of a file; an identical one changes nothing.

    Models whose pipeline names a space that changed are trained anew the next time.
    """
    from ts_forecast.training import search_spaces
    from ts_forecast.yaml_file import read_yaml

    # A wrong file is refused before a server is started for it.
    entries = search_spaces.parse_spaces(read_yaml(file), origin=str(file))
    with _session() as session:
        done = search_spaces.import_spaces(session, entries, created_by=_user())
    for imported in done:
        typer.echo(f"{imported.name}: {imported.change}")


@app.command()
def export(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all active ones.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: the terminal.")
    ] = None,
) -> None:
    """Write spaces as YAML, as `import` reads it."""
    _export(names or None, output)


@app.command()
def deactivate(name: _Name) -> None:
    """Keep pipelines from naming a space; importing it again revives it."""
    from ts_forecast.training import search_spaces

    with _session() as session:
        search_spaces.deactivate_space(session, name)
    typer.echo(f"{name}: deactivated")


def _export(names: list[str] | None, output: Path | None) -> None:
    from ts_forecast.files import write_whole
    from ts_forecast.training import search_spaces

    with _session() as session:
        content = search_spaces.export_spaces(session, names)
    text = _as_yaml(content)
    if output is None:
        typer.echo(text, nl=False)
        return

    def write(draft: Path) -> None:
        draft.write_text(text, encoding="utf-8")

    write_whole(output, write)
    typer.echo(f"written: {output}")


def _as_yaml(spaces: dict[str, Any]) -> str:
    """YAML as people write it: one line a parameter."""
    import yaml

    class Line(dict[str, Any]):
        pass

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        Line,
        lambda dumper, line: dumper.represent_mapping(
            "tag:yaml.org,2002:map", line.items(), flow_style=True
        ),
    )
    for entry in spaces.values():
        entry["space"] = {
            name: Line(domain) if isinstance(domain, dict) else domain
            for name, domain in entry["space"].items()
        }
    return yaml.dump(spaces, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _described(space: SearchSpace) -> dict[str, Any]:
    definition = space.search_space_definition
    return {
        "name": space.space_name,
        "model": space.model_type,
        "searches": sorted(key for key, domain in definition.items() if isinstance(domain, dict)),
        "active": bool(space.is_active),
        "changed": space.updated_at.isoformat(),
        "description": space.space_description or "",
    }


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


@contextmanager
def _session() -> Iterator[Session]:
    """One transaction on the deployment's database, its schema brought up to date."""
    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.db.engine import transaction
    from ts_forecast.settings import load_settings

    database = open_database(load_settings())
    try:
        migrate.upgrade(database.engine)
        with transaction(database.engine) as session:
            yield session
    finally:
        database.engine.dispose()
