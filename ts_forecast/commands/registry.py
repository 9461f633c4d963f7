"""``ts-forecast registry``: versions, their stages, and a person's word on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ts_forecast.registry.stages import Action
    from ts_forecast.settings import Settings
    from ts_forecast.tables.registry import RegisteredModel

T = TypeVar("T")
app = typer.Typer(help="Registered versions and which is in production.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="PIPELINE/MODEL, e.g. shop/NHITS.")]
_Version = Annotated[int, typer.Argument(help="Its number.")]
_Why = Annotated[str, typer.Option("--why", help="The reason; it is kept.")]
_By = Annotated[
    str | None, typer.Option("--by", help="Who decides; default: TS_FORECAST_USER or the login.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_STAGES = ["none", "staging", "production", "archived"]


@app.command("list")
def list_versions(
    pipeline: Annotated[str | None, typer.Argument(help="Of this pipeline only.")] = None,
    quarter: Annotated[str | None, typer.Option(help="E.g. 2024-Q1.")] = None,
    stage: Annotated[str | None, typer.Option(help=f"One of {', '.join(_STAGES)}.")] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Candidates for approval.")] = False,
    as_json: _Json = False,
) -> None:
    """List versions with their stages, by quarter and name."""
    from rich.console import Console
    from rich.table import Table

    from ts_forecast.quarters import Quarter
    from ts_forecast.registry.stages import is_candidate, list_registered

    if stage is not None and stage not in _STAGES:
        raise typer.BadParameter(f"allowed: {', '.join(_STAGES)}", param_hint="--stage")
    start = None if quarter is None else Quarter.parse(quarter).start.date()
    found = _run(lambda session: list_registered(session, pipeline, start, stage))
    entries = [_described(one) for one in found if is_candidate(one) or not waiting]
    if as_json:
        _print_json(entries)
        return
    columns = ["quarter", "name", "version", "stage", "since", "by"]
    table = Table(*columns)
    for entry in entries:
        table.add_row(*(str(entry[column] or "") for column in columns))
    Console().print(table)


@app.command()
def show(name: _Name, version: _Version, as_json: _Json = False) -> None:
    """Print all that is known of a version: stage, decision, scores, files."""
    from rich.console import Console
    from rich.table import Table

    from ts_forecast.registry.stages import find_version

    def look(session: Session) -> dict[str, Any]:
        from ts_forecast.tables.training import Model

        found = find_version(session, name, version)
        path = session.get_one(Model, found.model_id).model_file_path
        kept = found.metadata_ or {}
        return {
            **_described(found),
            "previous_stage": found.previous_stage,
            "deployed_at": None if found.deployed_at is None else found.deployed_at.isoformat(),
            "decision": kept.get("decision"),
            "evidence": kept.get("candidate") or kept.get("evidence"),
            "production_metrics": found.production_metrics,
            "model_id": found.model_id,
            "path": path,
        }

    entry = _run(look)
    if as_json:
        _print_json(entry)
        return
    table = Table(show_header=False)
    for key, value in entry.items():
        table.add_row(key, "" if value is None else str(value))
    Console().print(table)


@app.command()
def approve(name: _Name, version: _Version, why: _Why, by: _By = None) -> None:
    """Put a candidate into production; what was there is archived."""
    _decide("approve", name, version, why, by)


@app.command()
def reject(name: _Name, version: _Version, why: _Why, by: _By = None) -> None:
    """Archive a version of staging; the choice passes it over from then on."""
    _decide("reject", name, version, why, by)


@app.command()
def promote(name: _Name, version: _Version, why: _Why, by: _By = None) -> None:
    """Put any version into production, and keep the choice from replacing its model."""
    _decide("promote", name, version, why, by)


@app.command()
def rollback(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    quarter: Annotated[str, typer.Argument(help="E.g. 2024-Q1.")],
    why: _Why,
    by: _By = None,
) -> None:
    """Take the version in production back; the one before it returns."""
    from ts_forecast.quarters import Quarter
    from ts_forecast.registry import stages
    from ts_forecast.tracking.experiments import experiment_id

    start = Quarter.parse(quarter).start.date()

    def decide(session: Session, who: str) -> tuple[str, str]:
        decision = stages.Decision(who, why)
        pair = stages.rollback(session, experiment_id(session, pipeline), start, decision)
        return stages.described(pair[0]), stages.described(pair[1])

    taken, returned = _write(decide, by)
    typer.echo(f"{taken}: archived")
    typer.echo(f"{returned}: production")


def _decide(action: Action, name: str, version: int, why: str, by: str | None) -> None:
    from ts_forecast.registry import stages

    def decide(session: Session, who: str) -> str:
        decision = stages.Decision(who, why)
        return stages.decide(session, action, name, version, decision).current_stage

    typer.echo(f"{name} {version}: {_write(decide, by)}")


def _described(version: RegisteredModel) -> dict[str, Any]:
    from ts_forecast.quarters import Quarter
    from ts_forecast.registry.stages import is_candidate

    start, since = version.quarter_start, version.stage_transition_at
    decision = (version.metadata_ or {}).get("decision") or {}
    return {
        "name": version.registered_model_name,
        "version": version.model_version,
        "quarter": None if start is None else Quarter.of(start).label,
        "stage": f"{version.current_stage}{', waiting' if is_candidate(version) else ''}",
        "since": None if since is None else since.isoformat(timespec="seconds"),
        "by": decision.get("by"),
    }


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _run(work: Callable[[Session], T]) -> T:
    """Read in one transaction."""
    from ts_forecast.db.retry import in_transaction

    return _with_database(lambda database, _: in_transaction(database.engine, work, read_only=True))


def _write(work: Callable[[Session, str], T], by: str | None) -> T:
    """Decide in one transaction, in the name of who decides."""
    from ts_forecast.db.retry import in_transaction

    def decide(database: Any, settings: Settings) -> T:
        who = by or settings.user
        return in_transaction(database.engine, lambda session: work(session, who), user=who)

    return _with_database(decide)


def _with_database(use: Callable[[Any, Settings], T]) -> T:
    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database
    from ts_forecast.settings import load_settings

    settings = load_settings()
    database = open_database(settings)
    try:
        migrate.upgrade(database.engine)
        return use(database, settings)
    finally:
        database.dispose()
