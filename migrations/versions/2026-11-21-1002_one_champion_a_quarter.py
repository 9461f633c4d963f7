"""One version in production a pipeline and quarter, by an index; and what 0012 left to be validated.

Outside of a transaction, so that no lock is held while rows are read; whatever an interrupted attempt left
is dropped first.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_INDEXES = {
    "idx_registry_quarter": "INDEX CONCURRENTLY {name} ON model_registry "
    "(experiment_id, quarter_start)",
    "uq_registry_champion": "UNIQUE INDEX CONCURRENTLY {name} ON model_registry "
    "(experiment_id, quarter_start) WHERE current_stage = 'production'",
}
_FOREIGN_KEY = "fk_model_registry_experiment_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE models VALIDATE CONSTRAINT ck_models_framework")
        op.execute(
            "-- squawk-ignore ban-drop-constraint\n"
            f"ALTER TABLE model_registry DROP CONSTRAINT IF EXISTS {_FOREIGN_KEY}"
        )
        op.execute(
            f"ALTER TABLE model_registry ADD CONSTRAINT {_FOREIGN_KEY} FOREIGN KEY (experiment_id) "
            "REFERENCES experiments (experiment_id) ON DELETE CASCADE NOT VALID"
        )
        op.execute(f"ALTER TABLE model_registry VALIDATE CONSTRAINT {_FOREIGN_KEY}")
        # Waiting for old snapshots keeps nobody else waiting.
        op.execute("SET lock_timeout = 0")
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE {definition.format(name=name)}")
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    op.execute(f"ALTER TABLE model_registry DROP CONSTRAINT {_FOREIGN_KEY}")
    for name in reversed(_INDEXES):
        op.execute(f"DROP INDEX {name}")
