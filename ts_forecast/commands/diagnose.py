"""``ts-forecast doctor`` and ``version``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "error": "[red]✗[/red]"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    port: Annotated[int, typer.Option(help="The port that the UI is to have.")] = 3000,
) -> None:
    """Check what a newcomer can get wrong, and say how to mend it; exit code 1 if something is."""
    from ts_forecast.operations.doctor import examine_deployment

    findings = examine_deployment(port)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        from rich.console import Console

        console = Console()
        for finding in findings:
            console.print(
                f"{MARKS[finding.status]} {finding.subject:<18} {finding.detail}", highlight=False
            )
            if finding.remedy:
                console.print(f"  {'':<18} → {finding.remedy}", style="dim", highlight=False)
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(1)


def version() -> None:
    """Print the versions of ts-forecast and of the libraries that decide its results."""
    from importlib.metadata import version as installed

    for name in (
        "ts-forecast",
        "dagster",
        "neuralforecast",
        "statsforecast",
        "torch",
        "SQLAlchemy",
    ):
        typer.echo(f"{name} {installed(name)}")
