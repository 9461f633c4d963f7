"""The daily look at the schema: revision, invalid indexes, constraints, partitions, dead rows.

``examine_database`` puts it together with the server's side (``database_health``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ts_forecast.db import migrate
from ts_forecast.db.calendar_partitions import TABLES, CalendarTable, exists, is_partition
from ts_forecast.db.periods import Period
from ts_forecast.operations.database_health import judge_server
from ts_forecast.operations.database_scope import SCOPE, hidden_note
from ts_forecast.operations.database_tables import table_states
from ts_forecast.operations.findings import Finding, judged
from ts_forecast.operations.server_state import read_server

_INSUFFICIENT_PRIVILEGE = "42501"
_DEAD_ROWS, _DEAD_RATIO = 10_000, 0.2
# A leaf on its way in has references that are not validated yet, and one on its way out may keep them.
_PASSING = r"^predictions_[0-9]{4}_q[1-4]_e[0-9]+_[no][0-9a-f]+$"


def examine_database(engine: Engine) -> list[Finding]:
    """Look at everything, fine or not; what the role may not look at is said, and nothing is wrong."""
    checks: list[tuple[str, Callable[[Connection], list[Finding]]]] = [
        ("server", lambda connection: judge_server(read_server(connection))),
        ("rights", _rights),
        ("schema", _revision),
        ("indexes", _invalid_indexes),
        ("constraints", _unvalidated_constraints),
        ("partitions", _partitions_ahead),
        ("default partitions", _rows_in_defaults),
        ("dead rows", _dead_rows),
    ]
    findings = []
    for subject, check in checks:
        # Each on its own connection: a refused statement ends the transaction.
        with engine.connect() as connection:
            try:
                findings += check(connection)
            except DBAPIError as error:
                findings.append(_refused(subject, error))
    return findings


def _refused(subject: str, error: DBAPIError) -> Finding:
    reason = str(error.orig).splitlines()[0]
    if getattr(error.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
        return Finding(subject, "ok", f"not looked at: {reason}")
    return Finding(subject, "error", reason, "Look at the server's log; then ask again.")


def _rights(connection: Connection) -> list[Finding]:
    note = hidden_note(connection)
    return [Finding("rights", "ok", note or "this role sees what other users run")]


def _revision(connection: Connection) -> list[Finding]:
    here, newest = migrate.current(connection.engine), migrate.head()
    if here == newest:
        return [Finding("schema", "ok", f"revision {here}")]
    detail = f"revision {here or 'none'}, this version needs {newest}"
    return [Finding("schema", "error", detail, "Run `ts-forecast db upgrade`.")]


def _invalid_indexes(connection: Connection) -> list[Finding]:
    names = connection.scalars(
        text(
            "SELECT format('%s.%s', nspname, c.relname) FROM pg_index i "
            "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE nspname = ANY(:schemas) AND NOT (indisvalid AND indisready) "
            "AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p "
            "WHERE p.index_relid = i.indexrelid) ORDER BY 1"
        ),
        SCOPE,
    ).all()
    detail = f"{', '.join(names)}: not valid, written to and never read" if names else "all valid"
    remedy = (
        "Run `ts-forecast db indexes --reindex NAME`, or DROP INDEX CONCURRENTLY a …_ccnew one."
    )
    return [judged("indexes", not names, detail, remedy)]


def _unvalidated_constraints(connection: Connection) -> list[Finding]:
    names = connection.scalars(
        text(
            "SELECT format('%s on %s.%s', conname, nspname, r.relname) FROM pg_constraint c "
            "JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace "
            "WHERE nspname = ANY(:schemas) AND NOT convalidated AND r.relname !~ :passing "
            "ORDER BY 1"
        ),
        SCOPE | {"passing": _PASSING},
    ).all()
    detail = f"not validated: {', '.join(names)}" if names else "all validated"
    remedy = "Run ALTER TABLE … VALIDATE CONSTRAINT …; rows that break it are named then."
    return [judged("constraints", not names, detail, remedy)]


def _partitions_ahead(connection: Connection) -> list[Finding]:
    lacking, is_late = [], False
    for table in _logs(connection):
        now = Period.of(datetime.now(UTC), table.months)
        for period in (now, now.shift(1)):
            name = f"{table.schema}.{table.partition(period)}"
            if not is_partition(connection, name):
                lacking.append(name)
                is_late = is_late or period == now
    if not lacking:
        return [Finding("partitions", "ok", "the running and the next period have theirs")]
    return [
        Finding(
            "partitions",
            "error" if is_late else "warning",
            f"missing: {', '.join(lacking)}",
            "Run `ts-forecast db partitions create`; the schedule database_maintenance does it daily.",
        )
    ]


def _rows_in_defaults(connection: Connection) -> list[Finding]:
    found = []
    for table in _logs(connection):
        may_read, estimate = connection.execute(
            text(
                "SELECT has_schema_privilege(:schema, 'USAGE') AND has_table_privilege(relid, 'SELECT'), "
                "n_live_tup FROM pg_stat_all_tables WHERE schemaname = :schema AND relname = :name"
            ),
            {"schema": table.schema, "name": f"{table.name}_default"},
        ).one()
        count = (
            connection.scalar(text(f"SELECT count(*) FROM {table.default}")) if may_read else None
        )
        if rows := estimate if count is None else count:
            found.append(f"{rows} in {table.default}")
    remedy = "Run `ts-forecast db partitions create`: it moves them into partitions of their own."
    return [judged("default partitions", not found, ", ".join(found) or "empty", remedy)]


def _dead_rows(connection: Connection) -> list[Finding]:
    tables = [
        f"{state.table} ({state.dead_ratio:.0%})"
        for state in table_states(connection, rolled_up=False)
        if state.dead_rows >= _DEAD_ROWS and state.dead_ratio >= _DEAD_RATIO
    ]
    detail = f"many in {', '.join(tables)}" if tables else "few"
    remedy = "Run `ts-forecast db maintain`; if it recurs, autovacuum is too slow for the table."
    return [judged("dead rows", not tables, detail, remedy)]


def _logs(connection: Connection) -> list[CalendarTable]:
    """Tables that take every row at once; a slice's quarter is made when it is published."""
    return [table for table in TABLES if table.has_default and exists(connection, table.default)]
