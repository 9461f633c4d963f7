"""Checks of the deployment: environment, pipelines and their sources, database and schema."""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from ts_forecast.errors import TsForecastError
from ts_forecast.operations.findings import Finding, judged
from ts_forecast.settings import Settings

_OLDEST_POSTGRES = 15
_MOST_CLOCK_SECONDS = 60
_SIMILARITY = 0.85


def check_environment(settings: Settings) -> list[Finding]:
    """Variables that look like ours and are not; the others ``load_settings`` has refused."""
    known = {
        str(field.validation_alias or name).upper()
        for name, field in type(settings).model_fields.items()
    }
    findings = [Finding("settings", "ok", "the environment and .env are understood")]
    for name in sorted(set(os.environ) - known):
        if close := difflib.get_close_matches(name, sorted(known), n=1, cutoff=_SIMILARITY):
            remedy = f"Did you mean {close[0]}? Rename or unset it."
            findings.append(Finding("environment", "warning", f"{name} is set, unread", remedy))
    return findings


def check_pipelines(settings: Settings) -> list[Finding]:
    """Whether each pipeline file is right, and its source files are there."""
    from ts_forecast.datasets.readers import source_files
    from ts_forecast.pipeline_file import load_pipeline

    paths = sorted(
        path for path in settings.pipelines_dir.glob("*") if path.suffix in (".yaml", ".yml")
    )
    if not paths:
        remedy = (
            "Copy pipelines/air_passengers.yaml there and change it, or set TS_FORECAST_PIPELINES."
        )
        return [Finding("pipelines", "warning", f"none in {settings.pipelines_dir}", remedy)]
    findings = []
    for path in paths:
        try:
            pipeline = load_pipeline(path)
        except TsForecastError as error:
            findings.append(Finding(path.stem, "error", error.problem, error.remedy))
            continue
        try:
            count = len(source_files(pipeline, settings))
            findings.append(Finding(path.stem, "ok", f"{count} source file{'s'[: count - 1]}"))
        except TsForecastError as error:
            findings.append(Finding(path.stem, "warning", error.problem, error.remedy))
    return findings


def check_database(settings: Settings) -> list[Finding]:
    """Version, encoding, rights, clock and schema of the database; the embedded one is started."""
    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database

    database = open_database(settings)
    try:
        with database.engine.connect() as connection:
            findings = [_server(connection, database.address), *_rights(connection)]
            if settings.database_url is not None:
                findings.append(_clock(connection))
        here, newest = migrate.current(database.engine), migrate.head()
    finally:
        database.engine.dispose()
    detail = f"revision {here}" if here == newest else f"revision {here or 'none'}, not {newest}"
    remedy = "Run `ts-forecast db upgrade`; `dev` and `demo` do it themselves."
    return [*findings, judged("schema", here == newest, detail, remedy)]


def _server(connection: Connection, address: str) -> Finding:
    number = int(connection.scalar(text("SHOW server_version_num")) or 0) // 10_000
    encoding = connection.scalar(text("SHOW server_encoding"))
    if number < _OLDEST_POSTGRES:
        remedy = f"Use PostgreSQL {_OLDEST_POSTGRES} or newer."
        return Finding("database", "error", f"{address}: version {number} is too old", remedy)
    if encoding != "UTF8":
        remedy = "Create the database with ENCODING 'UTF8'."
        return Finding("database", "error", f"{address}: its encoding is {encoding}", remedy)
    return Finding("database", "ok", f"PostgreSQL {number}, {address}")


def _rights(connection: Connection) -> list[Finding]:
    query = text(
        "SELECT current_user, has_schema_privilege(current_schema(), 'CREATE'), "
        "has_schema_privilege('dagster', 'CREATE')"
    )
    user, ours, dagsters = connection.execute(query).one()
    lacking = [schema for schema, may in (("public", ours), ("dagster", dagsters)) if not may]
    if not lacking:
        return []
    schemas = ", ".join(lacking)
    detail = f"{user} may not create tables in the schema {schemas}"
    return [
        Finding("rights", "error", detail, f"GRANT USAGE, CREATE ON SCHEMA {schemas} TO {user};")
    ]


def _clock(connection: Connection) -> Finding:
    there = connection.scalar(text("SELECT clock_timestamp()"))
    apart = abs((datetime.now(UTC) - there).total_seconds()) if there else 0.0
    detail = f"{apart:.0f} s apart from this machine's"
    remedy = "Synchronize both clocks (NTP): durations and schedules follow them."
    return judged("database clock", apart <= _MOST_CLOCK_SECONDS, detail, remedy)
