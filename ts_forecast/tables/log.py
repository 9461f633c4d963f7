"""What the system says of itself, and who changed what: partitioned by time.

Both have a DEFAULT partition, so that a row is never refused for want of one; rows are moved out of it
when their period's partition is made. Keys hold ``created_at``, as a partitioned table's must.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    Sequence,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, LongText, Name, one_of

LOG_ID = Sequence("system_logs_log_id_seq", metadata=Base.metadata)
AUDIT_ID = Sequence("audit_logs_audit_id_seq", schema="audit", metadata=Base.metadata)


class SystemLog(Base):
    """One log record, of WARNING or above unless a deployment asks for more."""

    __tablename__ = "system_logs"

    log_id: Mapped[int] = mapped_column(
        BigInteger, LOG_ID, server_default=LOG_ID.next_value(), comment="Key, with created_at."
    )
    log_level: Mapped[str] = mapped_column(
        String(20), comment="DEBUG, INFO, WARNING, ERROR or CRITICAL."
    )
    log_message: Mapped[LongText] = mapped_column(comment="What was said.")
    log_source: Mapped[Name | None] = mapped_column(comment="The logger's name.")
    run_id: Mapped[int | None] = mapped_column(
        ForeignKey("runs.run_id", ondelete="SET NULL"), comment="The run that it is about."
    )
    user_id: Mapped[Name | None] = mapped_column(comment="The application user's name.")
    stack_trace: Mapped[LongText | None] = mapped_column(comment="Of an exception.")
    exception_type: Mapped[Name | None] = mapped_column(comment="Of an exception.")
    extra_data: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Pipeline, quarter, process and the like.",
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=func.current_timestamp(),
        comment="When it was said, not when it was stored.",
    )

    __table_args__ = (
        PrimaryKeyConstraint("log_id", "created_at", name="pk_system_logs"),
        CheckConstraint(
            one_of("log_level", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "ck_logs_level"
        ),
        Index("idx_logs_level", "log_level"),
        Index("idx_logs_created_at", text("created_at DESC")),
        Index("idx_logs_run_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
        Index("idx_logs_source", "log_source"),
        {
            "postgresql_partition_by": "RANGE (created_at)",
            "comment": "Log records; a partition a month (UTC).",
        },
    )


class AuditLog(Base):
    """One change of one row, or one published slice; written by triggers, never changed."""

    __tablename__ = "audit_logs"

    audit_id: Mapped[int] = mapped_column(
        BigInteger, AUDIT_ID, server_default=AUDIT_ID.next_value(), comment="Key, with created_at."
    )
    table_name: Mapped[Name] = mapped_column(comment="The table that was changed.")
    operation_type: Mapped[str] = mapped_column(
        String(20), comment="INSERT, UPDATE, DELETE or TRUNCATE."
    )
    record_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="The row's key; of a slice, the run that published it."
    )
    old_values: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="The row before; NULL of an INSERT."
    )
    new_values: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="The row after; NULL of a DELETE."
    )
    changed_fields: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="Of an UPDATE: the columns that changed, with their new values."
    )
    user_id: Mapped[Name | None] = mapped_column(
        comment="The application user (app.current_user), else the database user."
    )
    database_user: Mapped[Name | None] = mapped_column(comment="session_user, whatever SET ROLE.")
    user_ip: Mapped[str | None] = mapped_column(String(50), comment="NULL over a unix socket.")
    session_id: Mapped[Name | None] = mapped_column(
        comment="Start of the session and process number, as %c in the server's log."
    )
    transaction_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="What was changed together."
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=func.current_timestamp(),
        comment="When the transaction began.",
    )

    __table_args__ = (
        PrimaryKeyConstraint("audit_id", "created_at", name="pk_audit_logs"),
        CheckConstraint(
            one_of("operation_type", "INSERT", "UPDATE", "DELETE", "TRUNCATE"),
            "ck_audit_operation",
        ),
        Index("idx_audit_table", "table_name"),
        Index("idx_audit_operation", "operation_type"),
        Index("idx_audit_user", "user_id"),
        Index("idx_audit_created_at", text("created_at DESC")),
        {
            "schema": "audit",
            "postgresql_partition_by": "RANGE (created_at)",
            "comment": "Who changed what and when; append-only; a partition a quarter (UTC).",
        },
    )
