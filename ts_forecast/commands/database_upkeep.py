"""``ts-forecast db``: the weekly round: tables, indexes, maintenance."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ts_forecast.commands.database import opened
from ts_forecast.commands.printing import (
    age,
    print_json,
    print_table,
    progress_is_wanted,
    say,
    size,
)

if TYPE_CHECKING:
    from ts_forecast.operations.database_indexes import IndexState

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def tables(
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Each partition by itself, not under its parent.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the tables by size, with their rows and when they were last vacuumed and analyzed."""
    from ts_forecast.operations.database_tables import table_states

    with opened() as database, database.engine.connect() as connection:
        rows = table_states(connection, rolled_up=not partitions)
    if as_json:
        print_json(rows)
        return
    print_table(
        rows,
        [
            ("table", lambda row: row.table),
            ("partitions", lambda row: row.partitions or None),
            ("rows", lambda row: row.rows),
            ("dead", lambda row: row.dead_rows),
            ("table size", lambda row: size(row.table_bytes)),
            ("indexes", lambda row: size(row.index_bytes)),
            ("total", lambda row: size(row.total_bytes)),
            ("vacuumed", lambda row: row.last_vacuum),
            ("analyzed", lambda row: row.last_analyze),
        ],
        empty="there are no tables: run `ts-forecast db upgrade`",
    )


def indexes(
    reindex: Annotated[
        str | None, typer.Option(metavar="NAME", help="Rebuild this one, beside its users.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the indexes by size, and which are unused, redundant or bloated."""
    from ts_forecast.operations.database_indexes import index_report
    from ts_forecast.operations.database_maintenance import reindex as rebuild

    with opened() as database:
        if reindex is not None:
            freed = rebuild(database.engine, reindex)
            if as_json:
                print_json({"index": reindex, "freed_bytes": freed})
            else:
                say(f"{reindex} was rebuilt and is {size(freed)} smaller")
            return
        with database.engine.connect() as connection:
            report = index_report(connection)
    if as_json:
        rows = [
            asdict(one) | {"unused": one.is_unused, "bloated": one.is_bloated}
            for one in report.indexes
        ]
        print_json({"since": report.since, "indexes": rows})
        return
    print_table(
        report.indexes,
        [
            ("index", lambda row: row.index),
            ("table", lambda row: row.table),
            ("size", lambda row: size(row.size_bytes)),
            ("scans", lambda row: row.scans),
            ("bloat", lambda row: size(row.bloat_bytes)),
            ("remark", _remark),
        ],
        empty="there are no indexes",
    )
    since = f"{report.since:%Y-%m-%d}" if report.since else "the database was made"
    say(f"Scans since {since}; bloat is estimated. A unique index is never called unused.", "dim")


def maintain(
    everything: Annotated[
        bool, typer.Option("--all", help="Every table, whether it needs it or not.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Vacuum and analyze what needs it, refresh the materialized views; exit code 1 if some was left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ts_forecast.operations.database_maintenance import Done, perform, planned_steps

    done = []
    with opened() as database:
        with database.engine.connect() as connection:
            steps = planned_steps(connection, everything=everything)
        with Progress(
            TextColumn("{task.description:<50}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not progress_is_wanted(),
        ) as progress:
            task = progress.add_task("", total=len(steps))
            for step in steps:
                progress.update(task, description=f"{step.kind} {step.target}")
                done.append(
                    Done(step, 0.0, "not done: dry run")
                    if dry_run
                    else perform(database.engine, step)
                )
                progress.advance(task)
    if as_json:
        print_json(done)
    else:
        print_table(
            done,
            [
                ("step", lambda row: row.step.kind),
                ("of", lambda row: row.step.target),
                ("because", lambda row: row.step.reason),
                ("took", lambda row: age(row.seconds)),
                ("", lambda row: row.problem),
            ],
            empty="nothing needs it",
        )
    if not dry_run and any(one.problem for one in done):
        raise typer.Exit(1)


COMMANDS = (tables, indexes, maintain)


def _remark(index: IndexState) -> str:
    remarks = []
    if index.covered_by:
        remarks.append(f"redundant: {index.covered_by} does its work")
    elif index.is_unused:
        remarks.append("unused")
    if index.is_bloated:
        remarks.append("bloated: --reindex it")
    return "; ".join(remarks)
