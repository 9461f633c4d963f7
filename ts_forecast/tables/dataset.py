"""Datasets (files and quarterly partitions) and the profile of their columns."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, LongText, Name, Tags, one_of


class Dataset(Base):
    """A raw source file, or one version of a pipeline's quarter."""

    __tablename__ = "datasets"

    dataset_id: Mapped[BigId]
    dataset_uuid: Mapped[UUID] = mapped_column(
        unique=True, server_default=text("gen_random_uuid()")
    )
    dataset_name: Mapped[Name] = mapped_column(comment="<pipeline>/<quarter>, or the file's path.")
    dataset_description: Mapped[LongText | None]
    dataset_type: Mapped[str] = mapped_column(String(50))
    file_path: Mapped[LongText]
    file_format: Mapped[str] = mapped_column(String(50), server_default="csv")
    file_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    file_hash: Mapped[str | None] = mapped_column(
        String(64), comment="SHA-256 of the file's bytes."
    )
    num_rows: Mapped[int | None] = mapped_column(Integer)
    num_columns: Mapped[int | None] = mapped_column(Integer)
    num_time_series: Mapped[int | None] = mapped_column(Integer)
    date_column: Mapped[str | None] = mapped_column(String(100))
    target_column: Mapped[str | None] = mapped_column(String(100))
    frequency: Mapped[str | None] = mapped_column(String(20))
    start_date: Mapped[datetime | None] = mapped_column(DateTime)
    end_date: Mapped[datetime | None] = mapped_column(DateTime)
    schema_definition: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="Of a quarter: the roles of its exogenous columns."
    )
    column_types: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    missing_values_count: Mapped[int | None] = mapped_column(Integer, server_default=text("0"))
    duplicate_rows_count: Mapped[int | None] = mapped_column(Integer, server_default=text("0"))
    version: Mapped[str | None] = mapped_column(String(50), server_default="1.0.0")
    parent_dataset_id: Mapped[int | None] = mapped_column(
        ForeignKey("datasets.dataset_id"),
        comment="The version that this one restates; of a first version, the raw file.",
    )
    quarter_start: Mapped[date | None] = mapped_column(Date, comment="NULL for raw files.")
    tags: Mapped[Tags]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", JSONB, server_default=text("'{}'::jsonb")
    )
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint(
            one_of(
                "dataset_type", "raw", "processed", "training", "validation", "test", "production"
            ),
            "ck_datasets_type",
        ),
        CheckConstraint(
            one_of("file_format", "csv", "parquet", "json", "feather"), "ck_datasets_format"
        ),
        CheckConstraint("num_rows IS NULL OR num_rows >= 0", "ck_datasets_rows"),
        CheckConstraint("num_columns IS NULL OR num_columns > 0", "ck_datasets_columns"),
        Index("idx_datasets_name", "dataset_name"),
        Index("idx_datasets_type", "dataset_type"),
        Index("idx_datasets_file_hash", "file_hash"),
        Index("idx_datasets_created_at", text("created_at DESC")),
        Index(
            "idx_datasets_parent",
            "parent_dataset_id",
            postgresql_where=text("parent_dataset_id IS NOT NULL"),
        ),
        {"comment": "Source files and the quarterly datasets made from them, every version."},
    )


class DatasetFeature(Base):
    """The profile of one column of a dataset."""

    __tablename__ = "dataset_features"

    feature_id: Mapped[BigId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.dataset_id", ondelete="CASCADE"))
    feature_name: Mapped[Name]
    feature_type: Mapped[str] = mapped_column(String(50))
    data_type: Mapped[str] = mapped_column(String(50))
    min_value: Mapped[float | None] = mapped_column(Double)
    max_value: Mapped[float | None] = mapped_column(Double)
    mean_value: Mapped[float | None] = mapped_column(Double)
    median_value: Mapped[float | None] = mapped_column(Double)
    std_value: Mapped[float | None] = mapped_column(Double)
    num_unique_values: Mapped[int | None] = mapped_column(Integer)
    unique_values: Mapped[list[Any] | None] = mapped_column(JSONB)
    missing_count: Mapped[int | None] = mapped_column(Integer, server_default=text("0"))
    missing_percentage: Mapped[Decimal | None] = mapped_column(
        Numeric(5, 2), server_default=text("0.00")
    )
    feature_role: Mapped[str | None] = mapped_column(String(50))
    is_target: Mapped[bool | None] = mapped_column(Boolean, server_default=text("false"))
    is_exogenous: Mapped[bool | None] = mapped_column(Boolean, server_default=text("false"))
    exogenous_type: Mapped[str | None] = mapped_column(
        String(50), comment="future: known ahead; historic: up to the cutoff; static."
    )
    importance_score: Mapped[float | None] = mapped_column(Double)
    correlation_with_target: Mapped[float | None] = mapped_column(Double)
    tags: Mapped[Tags]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint(
            one_of("feature_type", "numeric", "categorical", "datetime", "text", "boolean"),
            "ck_features_type",
        ),
        CheckConstraint(
            one_of("feature_role", "target", "feature", "id", "timestamp", "weight", "ignore"),
            "ck_features_role",
        ),
        CheckConstraint(
            f"exogenous_type IS NULL OR {one_of('exogenous_type', 'future', 'historic', 'static')}",
            "ck_features_exog_type",
        ),
        CheckConstraint(
            "missing_percentage >= 0 AND missing_percentage <= 100", "ck_features_missing_pct"
        ),
        UniqueConstraint("dataset_id", "feature_name", name="uq_dataset_feature"),
        Index("idx_features_dataset_id", "dataset_id"),
        Index("idx_features_name", "feature_name"),
        Index("idx_features_type", "feature_type"),
        Index("idx_features_role", "feature_role"),
        Index("idx_features_target", "is_target", postgresql_where=text("is_target = true")),
        {"comment": "A profile of every column of a dataset."},
    )
