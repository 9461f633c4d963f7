"""Files on their way in with what was refused of them, and the catalogue of detached partitions.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS staging")
    op.execute("COMMENT ON SCHEMA staging IS 'Files on their way in.'")
    op.execute("CREATE SCHEMA IF NOT EXISTS archive")
    op.execute("COMMENT ON SCHEMA archive IS 'Detached partitions.'")
    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "experiment_id",
            sa.BigInteger(),
            nullable=True,
            comment="The pipeline whose source it belongs to.",
        ),
        sa.Column("file_path", sa.Text(), nullable=False),
        sa.Column("file_format", sa.String(length=50), nullable=True),
        sa.Column("file_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "file_hash", sa.String(length=64), nullable=True, comment="SHA-256 of the file's bytes."
        ),
        sa.Column("status", sa.String(length=50), server_default="received", nullable=False),
        sa.Column(
            "error_message", sa.Text(), nullable=True, comment="Of a rejected file, in one line."
        ),
        sa.Column("uploaded_by", sa.String(length=255), nullable=True),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.CheckConstraint(
            "status IN ('received', 'validating', 'accepted', 'rejected')",
            name=op.f("ck_uploads_status"),
        ),
        sa.CheckConstraint(
            "file_size_bytes IS NULL OR file_size_bytes >= 0", name=op.f("ck_uploads_size")
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.experiment_id"],
            name=op.f("fk_uploads_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_uploads")),
        schema="staging",
        comment="Files that arrived, and what became of each.",
    )
    op.create_index(
        "idx_uploads_experiment_id", "uploads", ["experiment_id"], unique=False, schema="staging"
    )
    op.create_index(
        "idx_uploads_file_hash", "uploads", ["file_hash"], unique=False, schema="staging"
    )
    op.create_index(
        "idx_uploads_open",
        "uploads",
        ["status"],
        unique=False,
        schema="staging",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "idx_uploads_received_at",
        "uploads",
        [sa.literal_column("received_at DESC")],
        unique=False,
        schema="staging",
    )
    op.create_table(
        "rejected",
        sa.Column("rejected_id", sa.BigInteger(), nullable=False),
        sa.Column("upload_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "row_number",
            sa.BigInteger(),
            nullable=True,
            comment="As an editor counts lines, the header being 1; NULL: the whole file.",
        ),
        sa.Column("column_name", sa.String(length=255), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False, comment="What is wrong, in one line."),
        sa.Column(
            "raw_values",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The row as read.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "row_number IS NULL OR row_number > 0", name=op.f("ck_rejected_row_number")
        ),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["staging.uploads.upload_id"],
            name=op.f("fk_rejected_upload_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("rejected_id", name=op.f("pk_rejected")),
        schema="staging",
        comment="Rows and files that were refused, and why.",
    )
    op.create_index(
        "idx_rejected_upload_id", "rejected", ["upload_id"], unique=False, schema="staging"
    )
    op.create_table(
        "partitions",
        sa.Column("archived_partition_id", sa.BigInteger(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False, comment="In the schema archive."),
        sa.Column(
            "parent_table",
            sa.Text(),
            nullable=False,
            comment="With its schema: public.system_logs.",
        ),
        sa.Column("bounds", sa.Text(), nullable=False, comment="FOR VALUES …, to attach it again."),
        sa.Column("row_count", sa.BigInteger(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "detached_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("detached_by", sa.String(length=255), nullable=True),
        sa.Column("dropped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("archived_partition_id", name=op.f("pk_partitions")),
        schema="archive",
        comment="Detached partitions: what they held and when they went.",
    )
    op.create_index(
        "idx_partitions_parent_table",
        "partitions",
        ["parent_table"],
        unique=False,
        schema="archive",
    )
    op.create_index(
        "uq_partitions_table_name",
        "partitions",
        ["table_name"],
        unique=True,
        schema="archive",
        postgresql_where=sa.text("dropped_at IS NULL"),
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA archive CASCADE")
    op.drop_table("rejected", schema="staging")
    op.drop_table("uploads", schema="staging")
    op.execute("DROP SCHEMA staging")
