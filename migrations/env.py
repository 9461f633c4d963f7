"""Alembic's environment: one migration at a time, no long locks, partitions left alone."""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlalchemy import Connection, text

from ts_forecast.db.database import open_database
from ts_forecast.db.engine import create_engine, lock_key
from ts_forecast.settings import load_settings
from ts_forecast.tables import Base

_LOCK_TIMEOUT = "5s"
_SCHEMAS = {None, "public", "audit", "staging", "archive"}
_left_alone: set[tuple[str | None, str]] = set()
_SEQUENCED = {"prediction_id", "log_id", "audit_id"}
_DATA = """
    SELECT nullif(nspname, 'public'), relname
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p')
      AND (relispartition OR nspname = 'archive' AND relname <> 'partitions'
           OR relname ~ '^predictions_[0-9]{4}_q[1-4]')
"""


def include_name(
    name: str | None,
    kind: Literal[
        "schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"
    ],
    parents: Mapping[str, Any],
) -> bool:
    """Ours alone, and no data: autogenerate would propose to drop every partition (Alembic #539)."""
    if kind == "schema":
        return name in _SCHEMAS
    return not (kind == "table" and (parents.get("schema_name"), name) in _left_alone)


def compare_default(
    _context: object, _found: object, column: sa.Column[Any], *_defaults: object
) -> bool | None:
    """Alembic hides nextval() of what it finds and shows it for what is wanted: never equal."""
    return False if column.name in _SEQUENCED else None


def migrate(connection: Connection) -> None:
    """Run the migrations on a connection, in one transaction."""
    # Waiting for another process's migrations may take long; waiting for a table's lock must not.
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key("migrations")})
    connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
    try:
        _left_alone.clear()
        _left_alone.update((schema, name) for schema, name in connection.execute(text(_DATA)))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_schemas=True,
            include_name=include_name,
            compare_server_default=compare_default,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        # The connection goes back to a pool whose next user may have to wait for longer.
        connection.execute(text("RESET lock_timeout"))
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": lock_key("migrations")})
        connection.commit()


def run() -> None:
    """Migrate the given connection or URL, or else the deployment's database."""
    given = context.config.attributes.get("connection")
    if given is not None and hasattr(given, "connect"):
        with given.connect() as connection:
            migrate(connection)
    elif given is not None:
        migrate(given)
    else:
        url = context.config.get_main_option("sqlalchemy.url")
        engine = create_engine(url) if url else open_database(load_settings()).engine
        with engine.connect() as connection:
            migrate(connection)
        engine.dispose()


if context.is_offline_mode():
    # The SQL for whoever may not run it themselves: the same timeout, the same transactions.
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
        context.run_migrations()
else:
    run()
