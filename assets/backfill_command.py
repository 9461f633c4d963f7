"""Backfill quarters of a pipeline through a running deployment: ``python -m assets.backfill_command``.

The backfill itself is Dagster's, grouped into runs by the assets' policies and executed by the daemon;
this process launches it, follows it and says how it ended. ``ts-forecast backfill`` calls it.
"""

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from assets.backfill import BackfillError, BackfillState, Webserver
from assets.backfill_progress import (
    BACKFILL,
    cancel,
    check_daemon,
    incomplete,
    open_backfills,
    progress,
    reasons,
    unfinished,
)
from ts_forecast.errors import TsForecastError
from ts_forecast.quarters import Quarter, quarter_range

_POLL_SECONDS = 2.0


def backfill(
    server: Webserver,
    pipeline: str,
    quarters: Sequence[Quarter],
    *,
    console: Console,
    resume: bool = False,
) -> list[str]:
    """Backfill all assets of a pipeline over quarters.

    Runs take several quarters each, as the pipeline file says. Where one of them fails, those that it
    left undone are tried once more, each in a run of its own: a bad quarter stops no other.

    Args:
        resume: only what is missing or failed; a backfill that is under way is followed first.

    Returns:
        One line for each quarter that is not complete, and for each reason; empty on success.

    Raises:
        BackfillError: there is no such pipeline, Dagster refused, or the backfill was canceled.
    """
    assets = server.asset_keys(pipeline)
    if not assets:
        raise BackfillError(
            f"The deployment has no pipeline {pipeline!r}.",
            remedy="`ts-forecast pipelines list` shows those of this checkout.",
        )
    under_way = open_backfills(server, pipeline)
    if under_way and not resume:
        raise BackfillError(
            f"A backfill of {pipeline} is under way: {', '.join(under_way)}.",
            remedy="Follow it with --resume, or end it with --cancel.",
        )
    _follow(server, under_way, console, "under way")
    wanted = incomplete(server, assets, quarters) if resume else list(quarters)
    if not wanted:
        console.print(f"{pipeline}: all {len(quarters)} quarters are complete")
        return []
    tags = {BACKFILL: pipeline}
    title = f"{pipeline} {wanted[0].label} to {wanted[-1].label}"
    launched = server.launch(assets, [q.key for q in wanted], title=title, tags=tags)
    states = _follow(server, [launched], console, title)
    left = _left(server, assets, wanted, [launched], states)
    if left and len(wanted) > 1:
        singly = [
            server.launch(assets, [q.key], title=f"{pipeline} {q.label} alone", tags=tags)
            for q in left
        ]
        states = _follow(server, singly, console, f"{len(left)} quarters, each alone")
        left = _left(server, assets, left, singly, states)
    if not left:
        return []
    failed = [run for state in states for run, status in state.runs.items() if status == "FAILURE"]
    errors = [state.error for state in states if state.error]
    names = ", ".join(quarter.label for quarter in left)
    return [f"not complete: {names}", *errors, *reasons(server, failed)]


def _left(
    server: Webserver,
    assets: list[list[str]],
    quarters: Sequence[Quarter],
    backfills: Sequence[str],
    states: Sequence[BackfillState],
) -> list[Quarter]:
    """The quarters that these backfills were to make and did not."""
    if any(state.status in ("CANCELED", "CANCELING") for state in states):
        raise BackfillError(
            "The backfill was canceled.", remedy="Go on with `ts-forecast backfill … --resume`."
        )
    if all(state.succeeded for state in states):
        return []
    # That a quarter had been made before says nothing of this time.
    undone = {quarter for one in backfills for quarter in unfinished(server, one)}
    return sorted({*incomplete(server, assets, quarters), *(undone & {*quarters})})


def _follow(
    server: Webserver, backfills: Sequence[str], console: Console, title: str
) -> list[BackfillState]:
    """Draw the progress of backfills until all have ended; how they ended."""
    if not backfills:
        return []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(title, total=None)
        while True:
            states = [server.state(one) for one in backfills]
            parts = [progress(server, one) for one in backfills]
            failed = sum(part.failed for part in parts)
            bar.update(
                task,
                total=sum(part.wanted for part in parts) or None,
                completed=sum(part.made for part in parts),
                description=f"{title}, {failed} failed" if failed else title,
            )
            if all(state.is_final for state in states):
                return states
            time.sleep(_POLL_SECONDS)


def _quarters(first: str, last: str) -> list[Quarter]:
    if not first or not last:
        raise BackfillError("Which quarters?", remedy="Say --from 2023-Q1 --to 2024-Q4.")
    quarters = list(quarter_range(Quarter.parse(first), Quarter.parse(last)))
    if not quarters:
        raise BackfillError(f"{last} lies before {first}.", remedy="Turn --from and --to round.")
    return quarters


def main(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of a pipeline.")],
    first: Annotated[str, typer.Option("--from", help="First quarter, e.g. 2023-Q1.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last quarter, included.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Only what is missing.")] = False,
    stop: Annotated[bool, typer.Option("--cancel", help="Cancel what is under way.")] = False,
    server: Annotated[str, typer.Option(help="Address of the webserver.")] = (
        "http://127.0.0.1:3000"
    ),
) -> None:
    """Backfill PIPELINE from one quarter to another, through a running deployment."""
    console = Console(stderr=True)
    client = Webserver(server)
    try:
        if stop:
            canceled = open_backfills(client, pipeline)
            for one in canceled:
                cancel(client, one)
            console.print(f"{pipeline}: {len(canceled)} backfills canceled")
            return
        quarters = _quarters(first, last)
        check_daemon(client)
        problems = backfill(client, pipeline, quarters, console=console, resume=resume)
    except TsForecastError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        console.print("It goes on; --resume follows it, --cancel ends it.")
        raise typer.Exit(130) from None
    for problem in problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
