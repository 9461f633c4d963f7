"""System logs by month, audit logs by quarter, each with a DEFAULT partition.

A row is never refused for want of a partition: what lands in the DEFAULT is moved when its period's
partition is made (``ts-forecast db partitions create``). The first two periods are made here.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PARTITIONED = (
    ("system_logs", "month", "1 month", "YYYY_MM"),
    ("audit.audit_logs", "quarter", "3 months", 'YYYY_"q"Q'),
)


def upgrade() -> None:
    op.execute("CREATE SEQUENCE system_logs_log_id_seq AS bigint")
    op.execute("CREATE SCHEMA IF NOT EXISTS audit")
    op.execute("COMMENT ON SCHEMA audit IS 'Who changed what and when.'")
    op.execute("CREATE SEQUENCE audit.audit_logs_audit_id_seq AS bigint")
    op.create_table(
        "system_logs",
        sa.Column(
            "log_id",
            sa.BigInteger(),
            server_default=sa.text("nextval('system_logs_log_id_seq')"),
            nullable=False,
        ),
        sa.Column("log_level", sa.String(length=20), nullable=False),
        sa.Column("log_message", sa.Text(), nullable=False),
        sa.Column("log_source", sa.String(length=255), nullable=True, comment="The logger's name."),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "user_id", sa.String(length=255), nullable=True, comment="The application user's name."
        ),
        sa.Column("stack_trace", sa.Text(), nullable=True),
        sa.Column("exception_type", sa.String(length=255), nullable=True),
        sa.Column(
            "extra_data",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
            comment="Pipeline, quarter, process and the like.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
            comment="When it was said, not when it was stored.",
        ),
        sa.CheckConstraint(
            "log_level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')",
            name=op.f("ck_logs_level"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_system_logs_run_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("log_id", "created_at", name="pk_system_logs"),
        comment="Log records; a partition a month (UTC).",
        postgresql_partition_by="RANGE (created_at)",
    )
    op.create_index(
        "idx_logs_created_at", "system_logs", [sa.literal_column("created_at DESC")], unique=False
    )
    op.create_index("idx_logs_level", "system_logs", ["log_level"], unique=False)
    op.create_index(
        "idx_logs_run_id",
        "system_logs",
        ["run_id"],
        unique=False,
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_index("idx_logs_source", "system_logs", ["log_source"], unique=False)
    op.create_table(
        "audit_logs",
        sa.Column(
            "audit_id",
            sa.BigInteger(),
            server_default=sa.text("nextval('audit.audit_logs_audit_id_seq')"),
            nullable=False,
        ),
        sa.Column("table_name", sa.String(length=255), nullable=False),
        sa.Column("operation_type", sa.String(length=20), nullable=False),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=True,
            comment="The row's key; of a slice, the run that published it.",
        ),
        sa.Column("old_values", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("new_values", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "changed_fields",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Of an UPDATE: the columns that changed, with their new values.",
        ),
        sa.Column(
            "user_id",
            sa.String(length=255),
            nullable=True,
            comment="The application user (app.current_user), else the database user.",
        ),
        sa.Column(
            "database_user",
            sa.String(length=255),
            nullable=True,
            comment="session_user, whatever SET ROLE.",
        ),
        sa.Column(
            "user_ip", sa.String(length=50), nullable=True, comment="NULL over a unix socket."
        ),
        sa.Column(
            "session_id",
            sa.String(length=255),
            nullable=True,
            comment="Start of the session and process number, as %c in the server's log.",
        ),
        sa.Column(
            "transaction_id", sa.BigInteger(), nullable=True, comment="What was changed together."
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "operation_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')",
            name=op.f("ck_audit_operation"),
        ),
        sa.PrimaryKeyConstraint("audit_id", "created_at", name="pk_audit_logs"),
        schema="audit",
        comment="Who changed what and when; append-only; a partition a quarter (UTC).",
        postgresql_partition_by="RANGE (created_at)",
    )
    op.create_index(
        "idx_audit_created_at",
        "audit_logs",
        [sa.literal_column("created_at DESC")],
        unique=False,
        schema="audit",
    )
    op.create_index(
        "idx_audit_operation", "audit_logs", ["operation_type"], unique=False, schema="audit"
    )
    op.create_index("idx_audit_table", "audit_logs", ["table_name"], unique=False, schema="audit")
    op.create_index("idx_audit_user", "audit_logs", ["user_id"], unique=False, schema="audit")
    for parent, unit, step, pattern in _PARTITIONED:
        op.execute(f"CREATE TABLE {parent}_default PARTITION OF {parent} DEFAULT")
        op.execute(
            f"""
            DO $$
            DECLARE first timestamp := date_trunc('{unit}', now() AT TIME ZONE 'UTC');
            BEGIN
                FOR i IN 1..2 LOOP
                    EXECUTE format(
                        'CREATE TABLE {parent}_%s PARTITION OF {parent} FOR VALUES FROM (%L) TO (%L)',
                        to_char(first, '{pattern}'),
                        first AT TIME ZONE 'UTC',
                        (first + interval '{step}') AT TIME ZONE 'UTC'
                    );
                    first := first + interval '{step}';
                END LOOP;
            END;
            $$
            """
        )


def downgrade() -> None:
    op.drop_table("audit_logs", schema="audit")
    op.execute("DROP SEQUENCE audit.audit_logs_audit_id_seq")
    op.execute("DROP SCHEMA audit")
    op.drop_table("system_logs")
    op.execute("DROP SEQUENCE system_logs_log_id_seq")
