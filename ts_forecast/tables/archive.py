"""The catalogue of detached partitions, which lie beside it in the schema ``archive``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, LongText, Name


class ArchivedPartition(Base):
    """A partition that was detached after its retention; ``dropped_at`` set: only this row is left."""

    __tablename__ = "partitions"

    archived_partition_id: Mapped[BigId] = mapped_column(comment="Key.")
    table_name: Mapped[LongText] = mapped_column(comment="In the schema archive.")
    parent_table: Mapped[LongText] = mapped_column(comment="With its schema: public.system_logs.")
    bounds: Mapped[LongText] = mapped_column(comment="FOR VALUES …, to attach it again.")
    row_count: Mapped[int | None] = mapped_column(
        BigInteger, comment="Rows at the time of detaching."
    )
    size_bytes: Mapped[int | None] = mapped_column(
        BigInteger, comment="Of table, indexes and TOAST."
    )
    detached_at: Mapped[CreatedAt] = mapped_column(comment="When it left its parent.")
    detached_by: Mapped[Name | None] = mapped_column(comment="The database user.")
    dropped_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When its rows were dropped; NULL: they are here."
    )
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )

    __table_args__ = (
        Index(
            "uq_partitions_table_name",
            "table_name",
            unique=True,
            postgresql_where=text("dropped_at IS NULL"),
        ),
        Index("idx_partitions_parent_table", "parent_table"),
        {"schema": "archive", "comment": "Detached partitions: what they held and when they went."},
    )
