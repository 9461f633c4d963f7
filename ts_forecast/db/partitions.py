"""Partitions of ``predictions``: a table a quarter, in it a leaf a pipeline.

Names and DDL. Filling a leaf and swapping it in is ``predictions.slice``. Tables are made with
``CREATE TABLE (LIKE …)`` and attached: ``CREATE TABLE … PARTITION OF`` blocks readers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from ts_forecast.errors import DatabaseError
from ts_forecast.quarters import Quarter

PARENT = "predictions"
_KEY = "experiment_id, model_id, unique_id, prediction_date, horizon"
_REFERENCES = {"experiment_id": "experiments", "run_id": "runs", "model_id": "models"}
_REFERENCED = ("models", "runs", "experiments")
_VACUUM_MS, _LOCK_MS = 3000, 50


@dataclass(frozen=True)
class Leaf:
    """One attached leaf."""

    name: str
    quarter_table: str
    comment: str | None
    rows_estimate: int
    size_bytes: int


def quarter_table(quarter: Quarter) -> str:
    """Name of a quarter's partition, e.g. ``predictions_2025_q1``."""
    return f"{PARENT}_{quarter.year}_q{quarter.number}"


def leaf_table(quarter: Quarter, experiment_id: int) -> str:
    """Name of a slice's leaf, e.g. ``predictions_2025_q1_e12``."""
    return f"{quarter_table(quarter)}_e{experiment_id}"


def exists(connection: Connection, table: str) -> bool:
    """Whether a table of that name can be seen."""
    return bool(connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table}))


def is_attached(connection: Connection, table: str) -> bool:
    """Whether a table of that name is somebody's partition."""
    return bool(
        connection.scalar(
            text("SELECT relispartition FROM pg_class WHERE oid = to_regclass(:name)"),
            {"name": table},
        )
    )


def refuse_detached(connection: Connection, table: str) -> None:
    """Refuse to go on where a table of a partition's name is no partition.

    Raises:
        DatabaseError: there is one; we detach only what we rename in the same transaction.
    """
    if exists(connection, table) and not is_attached(connection, table):
        raise DatabaseError(
            f"The table {table} is there and no partition of {PARENT}: somebody detached it.",
            remedy=f"Attach it again, or rename it (ALTER TABLE {table} RENAME TO …), or drop it.",
        )


def lock_for_change(
    connection: Connection,
    mode: Literal["SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"],
    *tables: str,
) -> None:
    """Lock what the foreign keys of partitions refer to, and partitions, until the transaction ends.

    At first in a mode that shuts no reader or writer out, in which other publishers wait for us and we
    for them, and whose waiting ends an autovacuum. Then in earnest: comers wait behind us from here on,
    so all locks together must be had within ``_LOCK_MS``, far below ``deadlock_timeout``: a deadlock ends
    our attempt and never another's transaction.

    Args:
        mode: ``ACCESS EXCLUSIVE`` to attach a leaf that has foreign keys of its own, which become the
            parent's, or to drop one; else the other, which lets readers through.
        tables: partitions, locked after what they refer to, as readers do.

    Raises:
        OperationalError: another kept a lock; ``with_short_locks`` tries again.
    """
    names = [*_REFERENCED, *tables]
    connection.execute(text(f"SET LOCAL lock_timeout = {_VACUUM_MS}"))
    everything = ", ".join(f"ONLY {name}" for name in names)
    connection.execute(text(f"LOCK TABLE {everything} IN SHARE UPDATE EXCLUSIVE MODE"))
    # Writers lock in either order: who meets one at every attempt must not always lose.
    first = random.choice((_REFERENCED, _REFERENCED[::-1]))
    _at_once(connection, [step for name in (*first, *tables) for step in _lock_until(name, mode)])


def _lock_until(name: str, mode: str) -> tuple[str, str]:
    left = f"greatest(1, {_LOCK_MS} - round(1000 * extract(epoch FROM clock_timestamp() - begun)))"
    return (
        f"PERFORM set_config('lock_timeout', {left}::integer::text, true)",
        f"LOCK TABLE ONLY {name} IN {mode} MODE",
    )


def _at_once(connection: Connection, statements: Sequence[str]) -> None:
    """In one way to the server: whoever waits for its locks does not wait for our turns."""
    block = "; ".join(statements)
    connection.execute(
        text(f"DO $$ DECLARE begun timestamptz := clock_timestamp(); BEGIN {block}; END $$")
    )


def ensure_quarter(connection: Connection, quarter: Quarter) -> str:
    """Make the quarter's partition if it is absent; its name.

    The caller holds the quarter's advisory lock.

    Raises:
        DatabaseError: somebody detached it; its rows are not ours to drop.
    """
    name = quarter_table(quarter)
    if is_attached(connection, name):
        return name
    refuse_detached(connection, name)
    connection.execute(
        text(
            f"CREATE TABLE {name} (LIKE {PARENT} INCLUDING DEFAULTS INCLUDING CONSTRAINTS "
            "INCLUDING COMMENTS) PARTITION BY LIST (experiment_id)"
        )
    )
    connection.execute(
        text(
            f"ALTER TABLE {PARENT} ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{quarter.start}') TO ('{quarter.end}')"
        )
    )
    return name


def create_detached_leaf(connection: Connection, name: str) -> None:
    """An empty table in a leaf's form, that no reader sees."""
    connection.execute(
        text(
            f"CREATE TABLE {name} (LIKE {PARENT} INCLUDING DEFAULTS INCLUDING CONSTRAINTS "
            "INCLUDING COMMENTS)"
        )
    )


def finish_leaf(
    connection: Connection, name: str, quarter: Quarter, experiment_id: int, comment: str
) -> None:
    """Keys and the CHECK of its bounds, so that attaching it scans nothing; locks only the leaf."""
    # Sorting a million keys in 64 MB spills to disk.
    connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
    connection.execute(text(f"ALTER TABLE {name} ADD PRIMARY KEY ({_KEY})"))
    connection.execute(text(f"CREATE INDEX ON {name} (unique_id, prediction_date DESC, horizon)"))
    connection.execute(
        text(
            f"ALTER TABLE {name} ADD CONSTRAINT ck_{PARENT}_bounds CHECK ("
            f"experiment_id IS NOT NULL AND experiment_id = {experiment_id} "
            f"AND prediction_date IS NOT NULL AND prediction_date >= '{quarter.start}' "
            f"AND prediction_date < '{quarter.end}')"
        )
    )
    connection.execute(text(f"COMMENT ON TABLE {name} IS '{comment}'"))


def reference_leaf(connection: Connection, name: str) -> None:
    """Foreign keys, not validated yet; shuts writers of their targets out until the commit."""
    for column, target in _REFERENCES.items():
        connection.execute(
            text(
                f"ALTER TABLE {name} ADD CONSTRAINT fk_{PARENT}_{column} FOREIGN KEY ({column}) "
                f"REFERENCES {target} ({column}) ON DELETE CASCADE NOT VALID"
            )
        )


def validate_leaf(connection: Connection, name: str) -> None:
    """Validate the foreign keys set-wise and gather statistics; shuts nobody out."""
    for column in _REFERENCES:
        connection.execute(text(f"ALTER TABLE {name} VALIDATE CONSTRAINT fk_{PARENT}_{column}"))
    connection.execute(text(f"ANALYZE {name}"))


def attach_leaf(connection: Connection, quarter: Quarter, name: str, experiment_id: int) -> None:
    """Let readers see a finished leaf, or an empty one; locks what its foreign keys refer to."""
    connection.execute(
        text(
            f"ALTER TABLE {quarter_table(quarter)} ATTACH PARTITION {name} "
            f"FOR VALUES IN ({experiment_id})"
        )
    )


def swap_leaf(
    connection: Connection, quarter: Quarter, experiment_id: int, offline: str, retired: str
) -> None:
    """Let a finished leaf take the place of the attached one, if there is one, which is renamed.

    The caller has locked all tables that this changes. The retired leaf loses its foreign keys, so that
    dropping it locks nothing but itself.
    """
    name, parent = leaf_table(quarter, experiment_id), quarter_table(quarter)
    statements = [
        f"ALTER TABLE {offline} RENAME TO {name}",
        f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES IN ({experiment_id})",
    ]
    if is_attached(connection, name):
        statements = [
            f"ALTER TABLE {parent} DETACH PARTITION {name}",
            f"ALTER TABLE {name} RENAME TO {retired}",
            *_without_references(retired),
            *statements,
        ]
    _at_once(connection, statements)


def unreference_leaf(connection: Connection, name: str) -> None:
    """Take a detached leaf's foreign keys away."""
    _at_once(connection, _without_references(name))


def _without_references(name: str) -> list[str]:
    return [
        f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS fk_{PARENT}_{column}"
        for column in _REFERENCES
    ]


def is_referencing(connection: Connection, name: str) -> bool:
    """Whether a table has foreign keys."""
    query = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(:name) "
    return bool(connection.scalar(text(f"{query} AND contype = 'f')"), {"name": name}))


def drop(connection: Connection, name: str) -> None:
    """Drop a detached leaf, if another has not done so."""
    connection.execute(text(f"DROP TABLE IF EXISTS {name}"))


def orphans(connection: Connection, quarter: Quarter, experiment_id: int) -> list[str]:
    """Detached leaves that nobody needs: retired ones of any slice, unfinished ones of this."""
    rows = connection.execute(
        text(
            "SELECT relname FROM pg_class "
            "WHERE (relname ~ :unfinished OR relname ~ :retired) AND relkind = 'r' "
            "AND NOT relispartition AND relnamespace = current_schema()::regnamespace"
        ),
        {
            "unfinished": f"^{leaf_table(quarter, experiment_id)}_n[0-9a-f]+$",
            "retired": f"^{PARENT}_[0-9]{{4}}_q[1-4]_e[0-9]+_o[0-9a-f]+$",
        },
    )
    return list(rows.scalars())


def list_leaves(connection: Connection) -> list[Leaf]:
    """Every attached leaf, by name."""
    rows = connection.execute(
        text(
            "SELECT c.relname, p.relname, obj_description(c.oid, 'pg_class'), "
            "greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) "
            "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "JOIN pg_class p ON p.oid = i.inhparent JOIN pg_inherits q ON q.inhrelid = p.oid "
            "WHERE q.inhparent = to_regclass(:parent) ORDER BY 1"
        ),
        {"parent": PARENT},
    )
    return [Leaf(*row) for row in rows]
