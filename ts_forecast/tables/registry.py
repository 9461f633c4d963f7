"""Registered model versions and the files that runs produced."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, LongText, Name, Tags, one_of


class RegisteredModel(Base):
    """A version of a (pipeline, model) with its stage."""

    __tablename__ = "model_registry"

    registry_id: Mapped[BigId] = mapped_column(comment="Key.")
    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.model_id", ondelete="CASCADE"), comment="The fitted model."
    )
    experiment_id: Mapped[int | None] = mapped_column(
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"),
        comment="The model's pipeline, which a trigger looks up.",
    )
    quarter_start: Mapped[date | None] = mapped_column(
        Date,
        comment="First day of the model's quarter, likewise; one version a quarter is in production.",
    )
    registered_model_name: Mapped[Name] = mapped_column(comment="<pipeline>/<model>")
    model_version: Mapped[int] = mapped_column(Integer, comment="Counted up per name.")
    current_stage: Mapped[str] = mapped_column(
        String(50), server_default="staging", comment="none, staging, production or archived"
    )
    previous_stage: Mapped[str | None] = mapped_column(
        String(50), comment="Before the last transition."
    )
    stage_transition_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Of the last transition."
    )
    approved_by: Mapped[Name | None] = mapped_column(comment="Who let it go on.")
    approved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), comment="When.")
    approval_notes: Mapped[LongText | None] = mapped_column(comment="Why.")
    deployed_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When it went into production."
    )
    deployment_target: Mapped[str | None] = mapped_column(String(100), comment="Where to.")
    production_metrics: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, server_default=text("'{}'::jsonb"), comment="Accuracy measured in production."
    )
    description: Mapped[LongText | None] = mapped_column(comment="For people.")
    tags: Mapped[Tags] = mapped_column(comment="Labels, as a JSON object; counted in tags.")
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
        CheckConstraint(
            one_of("current_stage", "staging", "production", "archived", "none"),
            "ck_registry_stage",
        ),
        CheckConstraint("model_version > 0", "ck_registry_version"),
        UniqueConstraint("registered_model_name", "model_version", name="uq_registry_name_version"),
        Index("idx_registry_model_id", "model_id"),
        Index("idx_registry_name", "registered_model_name"),
        Index("idx_registry_stage", "current_stage"),
        Index("idx_registry_quarter", "experiment_id", "quarter_start"),
        Index(
            "uq_registry_champion",
            "experiment_id",
            "quarter_start",
            unique=True,
            postgresql_where=text("current_stage = 'production'"),
        ),
        Index(
            "idx_registry_production",
            "registered_model_name",
            "model_version",
            postgresql_where=text("current_stage = 'production'"),
        ),
        Index(
            "idx_registry_deployed_at",
            text("deployed_at DESC"),
            postgresql_where=text("deployed_at IS NOT NULL"),
        ),
        {"comment": "Versions of registered models and their stages."},
    )


class Artifact(Base):
    """A file or folder that a run produced."""

    __tablename__ = "artifacts"

    artifact_id: Mapped[BigId] = mapped_column(comment="Key.")
    artifact_uuid: Mapped[UUID] = mapped_column(
        unique=True,
        server_default=text("gen_random_uuid()"),
        comment="The same row under a name that is unique everywhere.",
    )
    run_id: Mapped[int] = mapped_column(
        ForeignKey("runs.run_id", ondelete="CASCADE"), comment="The run that made it."
    )
    artifact_name: Mapped[Name] = mapped_column(comment="For people; unique within a run.")
    artifact_type: Mapped[str] = mapped_column(
        String(100), comment="model, report, plot and the like."
    )
    artifact_path: Mapped[LongText] = mapped_column(comment="Path of the file or folder.")
    file_size_bytes: Mapped[int | None] = mapped_column(
        BigInteger, comment="Of the file, or of all in the folder."
    )
    file_format: Mapped[str | None] = mapped_column(String(50), comment="Of the file.")
    mime_type: Mapped[str | None] = mapped_column(String(100), comment="Of the file.")
    file_hash: Mapped[str | None] = mapped_column(
        String(64), comment="SHA-256 of the content; of a folder, of its names and contents."
    )
    storage_type: Mapped[str] = mapped_column(
        String(50), server_default="local", comment="Where it is stored: local, s3, …"
    )
    storage_path: Mapped[LongText] = mapped_column(comment="Where it lies, as a URI.")
    description: Mapped[LongText | None] = mapped_column(comment="For people.")
    tags: Mapped[Tags] = mapped_column(comment="Labels, as a JSON object; counted in tags.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )
    is_public: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("false"), comment="Left to users."
    )
    access_count: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Left to users."
    )
    last_accessed_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Left to users."
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        CheckConstraint(
            one_of(
                "artifact_type",
                "model",
                "checkpoint",
                "prediction",
                "plot",
                "log",
                "config",
                "report",
                "data",
                "other",
            ),
            "ck_artifacts_type",
        ),
        CheckConstraint(
            one_of("storage_type", "local", "s3", "gcs", "azure", "mlflow", "wandb"),
            "ck_artifacts_storage",
        ),
        CheckConstraint("file_size_bytes IS NULL OR file_size_bytes >= 0", "ck_artifacts_size"),
        Index("idx_artifacts_run_id", "run_id"),
        Index("idx_artifacts_type", "artifact_type"),
        Index("idx_artifacts_name", "artifact_name"),
        Index("idx_artifacts_hash", "file_hash"),
        Index("idx_artifacts_created_at", text("created_at DESC")),
        Index("idx_artifacts_tags", "tags", postgresql_using="gin"),
        {"comment": "Files that runs produced, with their hashes."},
    )
