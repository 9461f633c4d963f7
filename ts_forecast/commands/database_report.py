"""``ts-forecast db report``: the monthly capacity report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ts_forecast.commands.database import opened
from ts_forecast.commands.printing import print_json, print_table, read_size, say, size

if TYPE_CHECKING:
    from ts_forecast.operations.database_capacity import CapacityReport, Growth

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def report(
    disk: Annotated[
        int | None,
        typer.Option(parser=read_size, metavar="SIZE", help="Say when so much is full: 500GB."),
    ] = None,
    keep: Annotated[
        bool, typer.Option(help="Put the figures on record (system_logs) for the next report.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Report sizes by table and by slice, and the growth since the last report."""
    from sqlalchemy.exc import DBAPIError

    from ts_forecast.db.engine import transaction
    from ts_forecast.operations import database_capacity

    grown, problem = None, ""
    with opened() as database:
        with database.engine.connect() as connection:
            now = database_capacity.capacity_report(connection)
        try:
            with transaction(database.engine) as session:
                grown = database_capacity.growth(session, now)
                if keep:
                    database_capacity.keep_report(session, now)
        except DBAPIError as error:
            # A role that may only read still gets its figures.
            problem = f"The report is not on record: {str(error.orig).splitlines()[0]}."
    full = grown.full_at(now, disk) if grown is not None and disk is not None else None
    if as_json:
        print_json({"report": now, "growth": grown, "full_at": full, "note": problem})
        return
    _print_report(now, grown)
    if disk is not None:
        answer = f"on {full:%Y-%m-%d}" if full else "never, as far as the reports on record show"
        say(f"{size(disk)} would be full {answer}")
    if problem:
        say(problem, "yellow")


def _print_report(now: CapacityReport, grown: Growth | None) -> None:
    from ts_forecast.operations.database_capacity import top

    say(f"The database takes {size(now.database_bytes)}")
    if grown is not None:
        rate = f", {size(grown.bytes_per_day)} a day" if grown.bytes_per_day is not None else ""
        say(f"It grew by {size(grown.bytes)} since {grown.since:%Y-%m-%d %H:%M}{rate}")
    else:
        say("There is no earlier report to compare with")
    changes = grown.tables if grown is not None else {}
    print_table(
        top(now),
        [
            ("table", lambda row: row.table),
            ("rows", lambda row: row.rows),
            ("size", lambda row: size(row.total_bytes)),
            ("growth", lambda row: size(changes[row.table]) if row.table in changes else None),
        ],
        title="The largest tables",
    )
    print_table(
        now.slices,
        [
            ("pipeline", lambda row: row.pipeline),
            ("quarter", lambda row: row.quarter),
            ("rows", lambda row: row.rows),
            ("size", lambda row: size(row.total_bytes)),
        ],
        title="Forecasts",
        empty="no forecasts yet",
    )
