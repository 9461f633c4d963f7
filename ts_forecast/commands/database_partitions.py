"""``ts-forecast db partitions``: list, create ahead; the archive is ``database_archive``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ts_forecast.commands.database import opened
from ts_forecast.commands.printing import print_json, print_table, say, size

if TYPE_CHECKING:
    from ts_forecast.db.calendar_partitions import CalendarTable
    from ts_forecast.db.partition_list import Partition
    from ts_forecast.operations.archive_catalogue import Archived

app = typer.Typer(
    help="Partitions of predictions, system_logs and audit.audit_logs.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Partitions by name.")]
Table = Annotated[
    str | None,
    typer.Option(metavar="TABLE", help="Only predictions, system_logs or audit_logs."),
]


@app.command("list")
def list_(
    table: Table = None,
    archived: Annotated[
        bool, typer.Option("--archived", help="Only those in the archive.")
    ] = False,
    dropped: Annotated[
        bool, typer.Option("--dropped", help="Those that were dropped, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the partitions: attached, in the archive, dropped."""
    from sqlalchemy.orm import Session

    from ts_forecast.db.partition_list import attached
    from ts_forecast.operations.archive_catalogue import list_archived, may_see_archive

    wanted = tables_named(table)
    names = {one.qualified for one in wanted}
    with opened() as database, database.engine.connect() as connection:
        there = (
            []
            if archived
            else [p for one in wanted for p in attached(connection, one, with_empty=True)]
        )
        is_hidden = not may_see_archive(connection)
        with Session(connection) as session:
            rows = [] if is_hidden else list_archived(session, with_dropped=dropped)
    gone = [row for row in rows if row.table in names]
    note = "The archive is hidden from this role." if is_hidden else ""
    if as_json:
        print_json({"attached": there, "archived": gone, "note": note})
        return
    if not archived:
        print_attached(there)
    if note:
        say(note, "dim")
    else:
        print_archived(gone)


@app.command()
def create(
    table: Table = None,
    until: Annotated[
        str | None, typer.Option(help="A month, quarter or day; else 3 months, 2 quarters ahead.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make the partitions of the running and the next periods, and of rows in a default partition."""
    from ts_forecast.db.periods import Period
    from ts_forecast.operations.partitions_ahead import (
        CreatedPartition,
        ensure_ahead,
        missing_partitions,
    )

    last = Period.parse(until, 1).start if until is not None else None
    with opened() as database:
        if dry_run:
            with database.engine.connect() as connection:
                missing = missing_partitions(connection, tables=tables_named(table), until=last)
            made = [
                CreatedPartition(m.table.qualified, m.name, m.period.start, m.period.end, 0)
                for m in missing
            ]
        else:
            made = list(ensure_ahead(database.engine, tables=tables_named(table), until=last))
    if as_json:
        print_json({"created": [] if dry_run else made, "missing": made if dry_run else []})
        return
    print_table(
        made,
        [
            ("missing" if dry_run else "created", lambda row: row.name),
            ("from", lambda row: row.start),
            ("to", lambda row: row.end),
            ("rows moved in", lambda row: row.moved_rows),
        ],
        empty="all are there",
    )


def tables_named(name: str | None) -> list[CalendarTable]:
    """The tables that a command is about: all, or the one of ``--table``."""
    from ts_forecast.db.calendar_partitions import TABLES

    found = [table for table in TABLES if name in (None, table.name, table.qualified)]
    if not found:
        raise typer.BadParameter(f"{name} is none of predictions, system_logs and audit_logs.")
    return found


def print_attached(found: list[Partition], empty: str = "none is attached") -> None:
    """Show attached partitions."""

    def ends(row: Partition) -> str:
        if row.end is None:
            return "default" if row.is_default else "unbounded"
        return "past" if row.end <= datetime.now(UTC) else "open"

    print_table(
        found,
        [
            ("partition", lambda row: row.name),
            ("from", lambda row: row.start),
            ("to", lambda row: row.end),
            ("rows", lambda row: row.rows),
            ("size", lambda row: size(row.size_bytes)),
            ("", ends),
        ],
        empty=empty,
    )


def print_archived(found: list[Archived]) -> None:
    """Show partitions of the archive."""
    print_table(
        found,
        [
            ("archived", lambda row: f"archive.{row.name}"),
            ("was", lambda row: row.was),
            ("rows", lambda row: row.rows),
            ("size", lambda row: size(row.size_bytes)),
            ("when", lambda row: row.detached_at),
            ("by", lambda row: row.detached_by),
            ("dropped", lambda row: row.dropped_at),
        ],
        empty="the archive is empty",
    )
