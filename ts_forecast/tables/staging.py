"""Files on their way in, and what was refused of them: the schema ``staging``.

Nothing here is a dataset: a file becomes one only whole and valid.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, LongText, Name, one_of


class Upload(Base):
    """A file that arrived, in one of its contents."""

    __tablename__ = "uploads"

    upload_id: Mapped[BigId] = mapped_column(comment="Key.")
    experiment_id: Mapped[int | None] = mapped_column(
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"),
        comment="The pipeline whose source it belongs to.",
    )
    file_path: Mapped[LongText] = mapped_column(
        comment="Where it arrived: a path or URL; sql:<pipeline>."
    )
    file_format: Mapped[str | None] = mapped_column(
        String(50), comment="csv, parquet, json, feather, or sql: a query."
    )
    file_size_bytes: Mapped[int | None] = mapped_column(BigInteger, comment="Size of the file.")
    file_hash: Mapped[str | None] = mapped_column(
        String(64), comment="SHA-256 of the file's bytes, or of a query's rows."
    )
    status: Mapped[str] = mapped_column(
        String(50), server_default="received", comment="received, validating, accepted or rejected."
    )
    error_message: Mapped[LongText | None] = mapped_column(
        comment="Of a rejected file, in one line."
    )
    uploaded_by: Mapped[Name | None] = mapped_column(comment="Who brought it.")
    received_at: Mapped[CreatedAt] = mapped_column(comment="When it was first seen.")
    finished_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When it was accepted or rejected."
    )
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )

    __table_args__ = (
        CheckConstraint(
            one_of("status", "received", "validating", "accepted", "rejected"), "ck_uploads_status"
        ),
        CheckConstraint("file_size_bytes IS NULL OR file_size_bytes >= 0", "ck_uploads_size"),
        Index("idx_uploads_experiment_id", "experiment_id"),
        Index("idx_uploads_file_hash", "file_hash"),
        Index("idx_uploads_received_at", text("received_at DESC")),
        Index("idx_uploads_open", "status", postgresql_where=text("finished_at IS NULL")),
        {"schema": "staging", "comment": "Files that arrived, and what became of each."},
    )


class Rejected(Base):
    """Something refused: a row of a file, or the file as a whole (``row_number`` NULL)."""

    __tablename__ = "rejected"

    rejected_id: Mapped[BigId] = mapped_column(comment="Key.")
    upload_id: Mapped[int] = mapped_column(
        ForeignKey("staging.uploads.upload_id", ondelete="CASCADE"), comment="The file."
    )
    row_number: Mapped[int | None] = mapped_column(
        BigInteger, comment="As an editor counts lines, the header being 1; NULL: the whole file."
    )
    column_name: Mapped[Name | None] = mapped_column(
        comment="Where in the row; NULL: the row as a whole."
    )
    reason: Mapped[LongText] = mapped_column(comment="What is wrong, in one line.")
    raw_values: Mapped[dict[str, Any] | None] = mapped_column(JSONB, comment="The row as read.")
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")

    __table_args__ = (
        CheckConstraint("row_number IS NULL OR row_number > 0", "ck_rejected_row_number"),
        Index("idx_rejected_upload_id", "upload_id"),
        {"schema": "staging", "comment": "Rows and files that were refused, and why."},
    )
