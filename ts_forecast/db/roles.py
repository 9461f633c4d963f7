"""The roles of people and services, and what each is granted.

Roles belong to the server and not to a database, so no migration makes them: ``ensure_roles`` does, after
every upgrade, and grants what new tables need. Which rows a role sees is row-level security's (the
revision of that name). Nobody is granted partitions, materialized views or default privileges: what is
read past a parent table is read past its policies.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ts_forecast.db.engine import lock_key

_ATTRIBUTES = {
    "readonly_user": "",
    "data_scientist": "",
    "admin_user": "CREATEDB CREATEROLE",
    "loader": "BYPASSRLS",
}
ROLES = tuple(_ATTRIBUTES)
"""Made without LOGIN: people and services are granted them."""

# A data scientist who may write these gives themselves every right, or changes the deployment.
_KEPT_FROM_SCIENTISTS = {"users", "system_config", "tags", "system_logs"}
_NOT_OURS = {"alembic_version"}
_IMMUTABLE = {"experiments": {"experiment_id", "created_by", "created_at"}}


@dataclass(frozen=True)
class RoleState:
    """A role as it was found or made.

    Attributes:
        made: by this call.
        remedy: SQL for the server's administrator where it is missing; else None.
    """

    name: str
    exists: bool
    made: bool
    remedy: str | None


def ensure_roles(connection: Connection) -> list[RoleState]:
    """Make the roles that are missing, as far as the connection may, and grant all that they need.

    Running it again changes nothing. Rights that somebody granted beyond these are left alone.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key("roles")})
    states = [_ensure(connection, name) for name in ROLES]
    for state in states:
        if state.exists:
            for statement in _grants(connection, state.name):
                connection.execute(text(statement))
    return states


def _ensure(connection: Connection, name: str) -> RoleState:
    attributes = _ATTRIBUTES[name]
    statement = f"CREATE ROLE {name} NOLOGIN {attributes}".strip()
    if _exists(connection, name):
        return RoleState(name, exists=True, made=False, remedy=None)
    try:
        with connection.begin_nested():
            connection.execute(text(statement))
    except DBAPIError:
        # Another database of this server made it meanwhile, or this login may not.
        exists = _exists(connection, name)
        return RoleState(
            name, exists=exists, made=False, remedy=None if exists else f"{statement};"
        )
    return RoleState(name, exists=True, made=True, remedy=None)


def _exists(connection: Connection, name: str) -> bool:
    found = connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name})
    return found is not None


def _grants(connection: Connection, role: str) -> list[str]:
    database = connection.scalar(text("SELECT quote_ident(current_database())"))
    schemas = {
        "readonly_user": ["public"],
        "data_scientist": ["public", "staging"],
        "admin_user": ["public", "staging", "archive", "audit"],
        "loader": ["public", "staging", "audit"],
    }[role]
    statements = [f"GRANT CONNECT ON DATABASE {database} TO {role}"]
    if role == "admin_user":
        statements = [f"GRANT ALL PRIVILEGES ON DATABASE {database} TO {role}"]
    for schema in schemas:
        statements.append(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        for table, kind in _relations(connection, schema):
            verbs = _verbs(role, schema, table, kind)
            if verbs:
                statements.append(f"GRANT {verbs} ON {schema}.{table} TO {role}")
        if role != "readonly_user" and schema != "audit":
            statements.append(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
    if role == "data_scientist":
        statements += _column_grants(connection, role)
    if role == "loader":
        statements += [
            f"GRANT EXECUTE ON FUNCTION audit.{function} TO {role}"
            for function in ("author()", "log_slice(text, bigint, text, text)")
        ]
    return statements


def _verbs(role: str, schema: str, table: str, kind: str) -> str:
    if table in _NOT_OURS:
        return ""
    if schema == "audit":
        return "SELECT" if role == "admin_user" else ""
    if kind == "m":
        return "SELECT" if role in ("admin_user", "loader") else ""
    if kind == "v" or role == "readonly_user":
        return "SELECT"
    if role == "data_scientist":
        if table in _KEPT_FROM_SCIENTISTS:
            return "SELECT"
        return "SELECT, INSERT" if table in _IMMUTABLE else "SELECT, INSERT, UPDATE"
    return "SELECT, INSERT, UPDATE, DELETE"


def _relations(connection: Connection, schema: str) -> list[tuple[str, str]]:
    rows = connection.execute(
        text(
            "SELECT relname, relkind::text FROM pg_class "
            "WHERE relnamespace = to_regnamespace(:schema) AND relkind IN ('r', 'p', 'v', 'm') "
            "AND NOT relispartition "
            # Leaves that are being built or were retired, and what was archived, are partitions too.
            "AND (relname !~ '^predictions_[0-9]{4}_q[1-4]') "
            "AND (:schema <> 'archive' OR relname = 'partitions') ORDER BY relname"
        ),
        {"schema": schema},
    )
    return [(name, kind) for name, kind in rows]


def _column_grants(connection: Connection, role: str) -> list[str]:
    """Who may update an experiment may not make it theirs."""
    statements = []
    for table, fixed in _IMMUTABLE.items():
        columns = connection.scalars(
            text(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:table) "
                "AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            ),
            {"table": f"public.{table}"},
        )
        free = ", ".join(column for column in columns if column not in fixed)
        statements.append(f"GRANT UPDATE ({free}) ON public.{table} TO {role}")
    return statements
