"""Which part of a PostgreSQL server is this deployment's, and how much of it a role may see.

Every command of ``ts-forecast db`` works for a role that is no superuser. What PostgreSQL hides from it
(other users' queries, unless it is a member of ``pg_monitor``) is said, never guessed.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from ts_forecast.db.database import DAGSTER_SCHEMA

SCHEMAS = ("public", "audit", "staging", "archive", DAGSTER_SCHEMA)
"""Our schemas, and Dagster's. What else is in the database is not looked at."""

SCOPE = {"schemas": list(SCHEMAS)}
"""The parameter of ``nspname = ANY(:schemas)``."""


def sees_other_users(connection: Connection) -> bool:
    """Whether the role sees what other users run."""
    query = text("SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')")
    return bool(connection.scalar(query))


def hidden_note(connection: Connection) -> str:
    """What to tell a role that does not see other users' queries; empty if it does."""
    if sees_other_users(connection):
        return ""
    user = connection.scalar(text("SELECT current_user"))
    return (
        "Other users' queries, states and ages are hidden from this role; a superuser can run "
        f"GRANT pg_monitor TO {user};"
    )
