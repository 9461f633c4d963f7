"""``ts-forecast db``: the daily look, and trouble: health, sessions, locks, slow statements.

What they find is ``operations``'; here it is printed, and asked before anything ends.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ts_forecast.commands.database import opened
from ts_forecast.commands.diagnose import MARKS
from ts_forecast.commands.printing import age, print_json, print_table, read_age, say

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def health(as_json: Json = False) -> None:
    """Look at the server and the schema; exit code 1 if something is wrong, with its remedy."""
    from ts_forecast.operations.schema_health import examine_database

    with opened() as database:
        findings = examine_database(database.engine)
    if as_json:
        print_json(findings)
    else:
        from rich.console import Console
        from rich.text import Text

        console = Console()
        for finding in findings:
            mark = Text.from_markup(f"{MARKS[finding.status]} ")
            console.print(mark + Text(f"{finding.subject:<18} {finding.detail}"), soft_wrap=True)
            if finding.remedy:
                console.print(Text(f"  {'':<18} → {finding.remedy}", "dim"), soft_wrap=True)
    if any(finding.status != "ok" for finding in findings):
        raise typer.Exit(1)


def activity(
    older_than: Annotated[
        float, typer.Option(parser=read_age, metavar="AGE", help="Leave out younger ones: 5m.")
    ] = "0s",  # type: ignore[assignment]
    as_json: Json = False,
) -> None:
    """List what runs now, and transactions that are left open, longest first."""
    from ts_forecast.operations.database_activity import running_queries
    from ts_forecast.operations.database_scope import hidden_note

    with opened() as database, database.engine.connect() as connection:
        note = hidden_note(connection)
        rows = running_queries(connection, older_than=older_than)
    if as_json:
        print_json({"queries": rows, "note": note})
        return
    print_table(
        rows,
        [
            ("pid", lambda row: str(row.pid)),
            ("user", lambda row: row.user),
            ("application", lambda row: row.application),
            ("for", lambda row: age(row.seconds)),
            ("transaction", lambda row: age(row.transaction_seconds)),
            ("state", lambda row: row.state or "hidden"),
            ("waits for", lambda row: row.wait),
            ("query", lambda row: _one_line(row.query)),
        ],
        empty="nothing runs",
    )
    _add(note)


def locks(as_json: Json = False) -> None:
    """List who waits for whose lock, longest first."""
    from ts_forecast.operations.database_activity import lock_waits
    from ts_forecast.operations.database_scope import hidden_note

    with opened() as database, database.engine.connect() as connection:
        note = hidden_note(connection)
        rows = lock_waits(connection)
    if as_json:
        print_json({"waits": rows, "note": note})
        return
    print_table(
        rows,
        [
            ("pid", lambda row: f"{row.pid} {row.user or ''}"),
            ("waits", lambda row: age(row.waiting_seconds)),
            ("for", lambda row: row.lock),
            ("to run", lambda row: _one_line(row.query)),
            ("kept by", lambda row: f"{row.blocking_pid} {row.blocking_user or ''}"),
            ("which is", lambda row: row.blocking_state or "hidden"),
            ("since", lambda row: age(row.blocking_seconds)),
            ("having run", lambda row: _one_line(row.blocking_query)),
        ],
        empty="nobody waits for a lock",
    )
    if rows:
        say("An idle one can be ended: ts-forecast db terminate PID --idle-for 1m", "dim")
    _add(note)


def slow(
    order: Annotated[
        Literal["mean", "total", "calls"], typer.Option(help="What to sort by.")
    ] = "mean",
    at_least: Annotated[float, typer.Option(help="Least mean time, in milliseconds.")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    as_json: Json = False,
) -> None:
    """List the slowest statements; where they are not counted, say how to have them counted."""
    from ts_forecast.operations.database_scope import hidden_note
    from ts_forecast.operations.database_statements import slow_statements

    with opened() as database, database.engine.connect() as connection:
        note = hidden_note(connection)
        found = slow_statements(connection, order=order, at_least_ms=at_least, limit=limit)
    if as_json:
        print_json({"statements": found.statements, "remedy": found.remedy, "note": note})
        return
    if found.remedy:
        say(found.remedy, "yellow")
        return
    print_table(
        found.statements,
        [
            ("calls", lambda row: row.calls),
            ("mean ms", lambda row: f"{row.mean_ms:,.1f}"),
            ("max ms", lambda row: f"{row.max_ms:,.1f}"),
            ("total s", lambda row: f"{row.total_ms / 1000:,.1f}"),
            ("rows", lambda row: row.rows),
            ("cache", lambda row: None if row.hit_ratio is None else f"{row.hit_ratio:.0%}"),
            ("user", lambda row: row.user),
            ("statement", lambda row: _one_line(row.query, 160)),
        ],
        empty="no statement is as slow as that",
    )
    _add(note)


def terminate(
    pid: Annotated[int | None, typer.Argument(help="One session; else all idle ones.")] = None,
    idle_for: Annotated[
        float, typer.Option(parser=read_age, metavar="AGE", help="Least age of its idleness: 30m.")
    ] = "1h",  # type: ignore[assignment]
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """End connections that have been idle for long; exit code 1 if one could not be ended.

    Without a PID, those that hold an advisory lock (a publication at work), listen, or are inside of a
    transaction are left alone; a PID may be of one that is idle in its transaction. One that is at work
    is never ended.
    """
    from ts_forecast.operations import database_connections

    with opened() as database:
        with database.engine.connect() as connection:
            idle = database_connections.idle_connections(connection, older_than=idle_for, pid=pid)
        if not as_json:
            print_table(
                idle,
                [
                    ("pid", lambda row: str(row.pid)),
                    ("user", lambda row: row.user),
                    ("application", lambda row: row.application),
                    ("state", lambda row: row.state),
                    ("for", lambda row: age(row.idle_seconds)),
                    ("last query", lambda row: _one_line(row.last_query)),
                ],
                empty=f"no connection has been idle for {age(idle_for)}",
            )
        if idle and not dry_run and not yes:
            typer.confirm(f"End {len(idle)} connections?", abort=True, err=True)
        done = [] if dry_run else database_connections.terminate(database.engine, idle)
    if as_json:
        print_json({"idle": idle, "terminations": done})
    for one in done:
        if not as_json:
            say(f"{one.pid}: {'ended' if one.ended else one.reason}")
    if not all(one.ended for one in done):
        raise typer.Exit(1)


COMMANDS = (health, activity, locks, slow, terminate)


def _one_line(query: str | None, width: int = 100) -> str | None:
    line = " ".join((query or "").split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _add(note: str) -> None:
    if note:
        say(note, "dim")
