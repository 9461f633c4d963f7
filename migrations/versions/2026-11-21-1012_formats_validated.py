"""The formats that 0014 allows, checked of the rows that are there.

Beside readers and writers: validating takes no lock that keeps them waiting.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE datasets VALIDATE CONSTRAINT ck_datasets_format")


def downgrade() -> None:
    pass
