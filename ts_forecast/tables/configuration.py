"""Settings that a deployment keeps in its database, and the catalogue of tags."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, CheckConstraint, Index, Integer, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, LongText, Name, one_of


class SystemConfig(Base):
    """One setting; read and written through ``configuration``, which types and encrypts it."""

    __tablename__ = "system_config"

    config_id: Mapped[BigId] = mapped_column(comment="Key.")
    config_key: Mapped[Name] = mapped_column(unique=True, comment="The setting's name.")
    config_value: Mapped[LongText] = mapped_column(comment="Encrypted where is_secret.")
    config_type: Mapped[str] = mapped_column(
        String(50), server_default="string", comment="How config_value is to be read."
    )
    description: Mapped[LongText | None] = mapped_column(comment="What it does.")
    category: Mapped[str | None] = mapped_column(String(100), comment="For listing.")
    validation_regex: Mapped[LongText | None] = mapped_column(
        comment="What the whole value must match."
    )
    is_secret: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("false"), comment="true: config_value is a Fernet token."
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        CheckConstraint(
            one_of("config_type", "string", "integer", "float", "boolean", "json"),
            "ck_config_type",
        ),
        Index("idx_config_key", "config_key"),
        Index("idx_config_category", "category"),
        {"comment": "Settings of the whole deployment that live in the database."},
    )


class Tag(Base):
    """A name that tags of experiments, runs, models and the like use as a key."""

    __tablename__ = "tags"

    tag_id: Mapped[BigId] = mapped_column(comment="Key.")
    tag_name: Mapped[Name] = mapped_column(unique=True, comment="A key of the tags columns.")
    tag_category: Mapped[str | None] = mapped_column(String(100), comment="For listing.")
    tag_description: Mapped[LongText | None] = mapped_column(comment="What it means.")
    usage_count: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Rows that carry it; kept by triggers."
    )
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        Index("idx_tags_name", "tag_name"),
        Index("idx_tags_category", "tag_category"),
        Index("idx_tags_usage", text("usage_count DESC")),
        {"comment": "The tags in use, and how often each is."},
    )
