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

    dataset_id: Mapped[BigId] = mapped_column(comment="Key.")
    dataset_uuid: Mapped[UUID] = mapped_column(
        unique=True,
        server_default=text("gen_random_uuid()"),
        comment="The same row under a name that is unique everywhere.",
    )
    dataset_name: Mapped[Name] = mapped_column(comment="<pipeline>/<quarter>, or the file's path.")
    dataset_description: Mapped[LongText | None] = mapped_column(comment="For people.")
    dataset_type: Mapped[str] = mapped_column(
        String(50),
        comment="raw: a source file; processed: a quarter of a pipeline; others for users.",
    )
    file_path: Mapped[LongText] = mapped_column(
        comment="Where the file lies: a path or URL; sql:<pipeline>."
    )
    file_format: Mapped[str] = mapped_column(
        String(50), server_default="csv", comment="csv, parquet, json, feather, or sql: a query."
    )
    file_size_bytes: Mapped[int | None] = mapped_column(BigInteger, comment="Size of the file.")
    file_hash: Mapped[str | None] = mapped_column(
        String(64), comment="SHA-256 of the file's bytes, or of a query's rows."
    )
    num_rows: Mapped[int | None] = mapped_column(Integer, comment="Rows of the file.")
    num_columns: Mapped[int | None] = mapped_column(Integer, comment="Columns of the file.")
    num_time_series: Mapped[int | None] = mapped_column(Integer, comment="Distinct unique_id.")
    date_column: Mapped[str | None] = mapped_column(
        String(100), comment="Column of the timestamps."
    )
    target_column: Mapped[str | None] = mapped_column(
        String(100), comment="Column of what is forecast."
    )
    frequency: Mapped[str | None] = mapped_column(
        String(20), comment="As pandas writes it: h, D, MS."
    )
    start_date: Mapped[datetime | None] = mapped_column(
        DateTime, comment="First timestamp, on the clock of the data."
    )
    end_date: Mapped[datetime | None] = mapped_column(
        DateTime, comment="Last timestamp, on the clock of the data."
    )
    schema_definition: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="Of a quarter: the roles of its exogenous columns."
    )
    column_types: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="Type of every column."
    )
    missing_values_count: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Gaps in the grid and missing values."
    )
    duplicate_rows_count: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Rows that stand twice."
    )
    version: Mapped[str | None] = mapped_column(
        String(50), server_default="1.0.0", comment="Counted up whenever a quarter is restated."
    )
    parent_dataset_id: Mapped[int | None] = mapped_column(
        ForeignKey("datasets.dataset_id"),
        comment="The version that this one restates; of a first version, the raw file.",
    )
    quarter_start: Mapped[date | None] = mapped_column(Date, comment="NULL for raw files.")
    tags: Mapped[Tags] = mapped_column(comment="Labels, as a JSON object; counted in tags.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Content hash, sources with their hashes, the report of the validation.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        CheckConstraint(
            one_of(
                "dataset_type", "raw", "processed", "training", "validation", "test", "production"
            ),
            "ck_datasets_type",
        ),
        CheckConstraint(
            one_of("file_format", "csv", "parquet", "json", "feather", "sql"), "ck_datasets_format"
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

    feature_id: Mapped[BigId] = mapped_column(comment="Key.")
    dataset_id: Mapped[int] = mapped_column(
        ForeignKey("datasets.dataset_id", ondelete="CASCADE"), comment="The dataset."
    )
    feature_name: Mapped[Name] = mapped_column(comment="The column.")
    feature_type: Mapped[str] = mapped_column(
        String(50), comment="numeric, categorical, datetime, text or boolean."
    )
    data_type: Mapped[str] = mapped_column(String(50), comment="As it is stored.")
    min_value: Mapped[float | None] = mapped_column(Double, comment="Smallest value.")
    max_value: Mapped[float | None] = mapped_column(Double, comment="Largest value.")
    mean_value: Mapped[float | None] = mapped_column(Double, comment="Mean value.")
    median_value: Mapped[float | None] = mapped_column(Double, comment="Median.")
    std_value: Mapped[float | None] = mapped_column(Double, comment="Standard deviation.")
    num_unique_values: Mapped[int | None] = mapped_column(Integer, comment="Distinct values.")
    unique_values: Mapped[list[Any] | None] = mapped_column(
        JSONB, comment="The values, where there are few."
    )
    missing_count: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Missing values."
    )
    missing_percentage: Mapped[Decimal | None] = mapped_column(
        Numeric(5, 2), server_default=text("0.00"), comment="Missing values, of 100."
    )
    feature_role: Mapped[str | None] = mapped_column(
        String(50), comment="What the column is to the pipeline."
    )
    is_target: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("false"), comment="true: what is forecast."
    )
    is_exogenous: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("false"), comment="true: helps to forecast."
    )
    exogenous_type: Mapped[str | None] = mapped_column(
        String(50), comment="future: known ahead; historic: up to the cutoff; static."
    )
    importance_score: Mapped[float | None] = mapped_column(Double, comment="Left to users.")
    correlation_with_target: Mapped[float | None] = mapped_column(
        Double, comment="Pearson's, over all rows."
    )
    tags: Mapped[Tags] = mapped_column(comment="Labels, as a JSON object; counted in tags.")
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

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
