"""``ts-forecast db partitions archive``, ``restore`` and ``drop``: asked before, shown after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ts_forecast.commands.database import opened
from ts_forecast.commands.database_partitions import (
    DryRun,
    Json,
    Table,
    print_archived,
    print_attached,
    tables_named,
)
from ts_forecast.commands.printing import print_json, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ts_forecast.operations.archive_catalogue import Archived

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Partitions by name.")]


def archive(
    names: Names = None,
    table: Table = None,
    older_than: Annotated[
        int | None,
        typer.Option(min=0, metavar="DAYS", help="Ended so many days ago; else the retention."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take partitions out of readers' sight, into the schema archive; nothing is lost.

    Without names, those that are past their table's retention: the settings default_retention_days
    for system_logs; audit_retention_days and predictions_retention_days, where they are set
    (ts-forecast config set), for the others.
    """
    from ts_forecast.operations.archive_catalogue import find_attached
    from ts_forecast.operations.partition_archive import archive as put_away
    from ts_forecast.operations.retention import expired, retention_days

    with opened() as database:
        with database.engine.connect() as connection:
            if names:
                found = find_attached(connection, names)
            else:
                found = [
                    part
                    for one in tables_named(table)
                    for part in expired(
                        connection,
                        one,
                        days=retention_days(connection, one) if older_than is None else older_than,
                    )
                ]
        if not as_json:
            print_attached(found, empty="none is past its retention")
        if dry_run or not found:
            if as_json:
                print_json({"archived": [], "expired": found})
            return
        if not yes:
            typer.confirm(f"Archive {len(found)} partitions?", abort=True, err=True)
        reason = "by hand" if names or older_than is not None else "retention"
        done = [put_away(database.engine, part, reason=reason) for part in found]
    if as_json:
        print_json({"archived": done, "expired": found})
    else:
        print_archived(done)


def restore(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Archived partitions.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Attach archived partitions again, with all of their rows."""
    from ts_forecast.operations.archive_catalogue import find_archived
    from ts_forecast.operations.partition_archive import restore as put_back

    with opened() as database:
        found = find_archived(_catalogue(database.engine), names)
        done = [] if dry_run else [put_back(database.engine, one) for one in found]
    if as_json:
        print_json({"restored": done, "found": found})
    elif dry_run:
        print_archived(found)
    for name in done if not as_json else []:
        say(f"{name} is attached again")


def drop(
    names: Names = None,
    older_than: Annotated[
        int | None,
        typer.Option(min=0, metavar="DAYS", help="Those archived so many days ago."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Drop archived partitions for good; what is not in the archive is never dropped."""
    from ts_forecast.operations.archive_catalogue import find_archived, older_than_days
    from ts_forecast.operations.partition_archive import drop_archived

    if not names and older_than is None:
        raise typer.BadParameter("Name partitions of the archive, or give --older-than DAYS.")
    with opened() as database:
        found = _catalogue(database.engine)
        if names:
            found = find_archived(found, names)
        if older_than is not None:
            found = older_than_days(found, older_than)
        if not as_json:
            print_archived(found)
        if found and not dry_run and not yes:
            rows = sum(one.rows or 0 for one in found)
            typer.confirm(f"Drop {len(found)} partitions, {rows:,} rows?", abort=True, err=True)
        dropped = [] if dry_run else found
        for one in dropped:
            drop_archived(database.engine, one)
    if as_json:
        print_json({"dropped": dropped, "found": found})
    elif dropped:
        say(f"{len(dropped)} dropped")


COMMANDS = (archive, restore, drop)


def _catalogue(engine: Engine) -> list[Archived]:
    from sqlalchemy.orm import Session

    from ts_forecast.operations.archive_catalogue import list_archived

    with Session(engine) as session:
        return list_archived(session)
