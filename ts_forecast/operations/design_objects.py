"""The objects that the database design names, and where a live schema has each.

``design_objects.csv`` is the list, drawn from the design's SQL and its errata once; what the errata put
something else in the place of says so there. The document that maps them to the revisions that make them
is written by ``ts-forecast db objects``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

from sqlalchemy import Connection, Engine, text

from ts_forecast.db import migrate

_LOOKUPS = {
    "schema": "SELECT to_regnamespace(:name) IS NOT NULL",
    "table": "SELECT to_regclass(:name) IS NOT NULL",
    "view": "SELECT to_regclass(:name) IS NOT NULL",
    "materialized view": "SELECT to_regclass(:name) IS NOT NULL",
    "function": "SELECT to_regproc(:name) IS NOT NULL",
    "role": "SELECT to_regrole(:name) IS NOT NULL",
    "column": "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:table) "
    "AND attname = :name AND attnum > 0 AND NOT attisdropped)",
    "constraint": "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(:table) "
    "AND conname = :name)",
    "index": "SELECT EXISTS (SELECT FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
    "WHERE indrelid = to_regclass(:table) AND relname = :name AND indisvalid)",
    "trigger": "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(:table) "
    "AND tgname = :name)",
    "policy": "SELECT EXISTS (SELECT FROM pg_policy WHERE polrelid = to_regclass(:table) "
    "AND polname = :name)",
}


@dataclass(frozen=True)
class DesignObject:
    """One object of the design.

    Attributes:
        kind: schema, table, column, constraint, index, view, function, trigger, policy, role, …
        table: what it belongs to, with its schema where that is not ``public``; empty: nothing.
        superseded: why the errata or we put something else in its place; empty: it must be there.
    """

    kind: str
    name: str
    table: str
    superseded: str

    def __str__(self) -> str:
        return f"{self.kind} {self.table + '.' if self.table else ''}{self.name}"


def design_objects() -> list[DesignObject]:
    """Everything that the design names, in its order."""
    source = files("ts_forecast.operations") / "design_objects.csv"
    rows = csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    return [DesignObject(**row) for row in rows]


def is_there(connection: Connection, item: DesignObject) -> bool:
    """Whether the schema has the object."""
    found = connection.scalar(text(_LOOKUPS[item.kind]), {"name": item.name, "table": item.table})
    return bool(found)


def origins(engine: Engine) -> dict[DesignObject, str]:
    """The file that makes each object: found by upgrading an empty database revision by revision.

    Returns:
        Objects that are there at the end; empty where PostgreSQL itself brings them.
    """
    made: dict[DesignObject, str] = {}
    open_items = design_objects()
    steps = [(step.revision, step.file) for step in reversed(migrate.history(engine))]
    for revision, file in [("", ""), *steps]:
        if revision:
            migrate.upgrade(engine, revision)
        with engine.connect() as connection:
            here = [item for item in open_items if is_there(connection, item)]
        place = f"migrations/versions/{file}" if file else ""
        made |= {item: "ts_forecast/db/roles.py" if item.kind == "role" else place for item in here}
        open_items = [item for item in open_items if item not in made]
    return made


def as_markdown(made: dict[DesignObject, str]) -> str:
    """The document: each object of the design, and the file that makes it, as ``origins`` found it."""
    lines = [
        "# The objects of the database design, and where each is made",
        "",
        "Written by `ts-forecast db objects` from a live schema that it upgrades revision by revision.",
        "A test compares it.",
        "",
        "| kind | object | made in |",
        "|---|---|---|",
    ]
    for item in design_objects():
        name = f"{item.table}.{item.name}" if item.table else item.name
        lines.append(f"| {item.kind} | `{name}` | {_place(item, made)} |")
    return "\n".join(lines) + "\n"


def _place(item: DesignObject, made: dict[DesignObject, str]) -> str:
    if item.superseded:
        return f"not made. {item.superseded}"
    place = made.get(item)
    if place is None:
        return "**missing**"
    return f"`{place}`" if place else "PostgreSQL"
