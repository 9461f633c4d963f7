"""Experiments (one a pipeline) and runs (one a computation)."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Date, DateTime, ForeignKey, Index, Numeric, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, LongText, Name, Tags, one_of


class Experiment(Base):
    """A pipeline, as the database knows it."""

    __tablename__ = "experiments"

    experiment_id: Mapped[BigId] = mapped_column(comment="The experiment's number.")
    experiment_name: Mapped[Name] = mapped_column(comment="The pipeline's name.")
    experiment_description: Mapped[LongText | None] = mapped_column(comment="For people.")
    experiment_type: Mapped[str] = mapped_column(
        String(50),
        server_default="training",
        comment="training, testing, production or development.",
    )
    status: Mapped[str] = mapped_column(
        String(50), server_default="active", comment="active, archived or deleted."
    )
    lifecycle_stage: Mapped[str] = mapped_column(
        String(50), server_default="active", comment="As MLflow's lifecycle stage."
    )
    created_by: Mapped[Name | None] = mapped_column(
        comment="Whose it is: a database user or users.username."
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )
    deleted_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Set where it is deleted softly."
    )
    tags: Mapped[Tags] = mapped_column(comment="Free-form labels.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="The pipeline's definition as it was last read.",
    )

    __table_args__ = (
        CheckConstraint(one_of("status", "active", "archived", "deleted"), "ck_experiments_status"),
        CheckConstraint(
            one_of("lifecycle_stage", "active", "deleted", "archived"), "ck_experiments_lifecycle"
        ),
        CheckConstraint(
            one_of("experiment_type", "training", "testing", "production", "development"),
            "ck_experiments_type",
        ),
        Index("idx_experiments_name", "experiment_name"),
        Index("idx_experiments_created_at", text("created_at DESC")),
        Index("idx_experiments_status", "status", postgresql_where=text("status = 'active'")),
        Index(
            "idx_experiments_status_created",
            "status",
            text("created_at DESC"),
            postgresql_where=text("status = 'active'"),
        ),
        Index(
            "idx_experiments_active",
            "experiment_name",
            postgresql_where=text("status = 'active' AND deleted_at IS NULL"),
        ),
        Index("idx_experiments_tags", "tags", postgresql_using="gin"),
        Index("idx_experiments_tags_gin", "tags", postgresql_using="gin"),
        Index(
            "idx_experiments_tags_jsonb_path",
            "tags",
            postgresql_using="gin",
            postgresql_ops={"tags": "jsonb_path_ops"},
        ),
        Index(
            "uq_experiments_active_name",
            "experiment_name",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        {"comment": "One row a pipeline: what its runs, models and forecasts belong to."},
    )


class Run(Base):
    """One computation: train, predict, evaluate, or a trial."""

    __tablename__ = "runs"

    run_id: Mapped[BigId] = mapped_column(comment="Key.")
    run_uuid: Mapped[UUID] = mapped_column(
        unique=True,
        server_default=text("gen_random_uuid()"),
        comment="The same row under a name that is unique everywhere.",
    )
    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"), comment="The pipeline."
    )
    parent_run_id: Mapped[int | None] = mapped_column(
        ForeignKey("runs.run_id", ondelete="SET NULL"), comment="The search of a trial, say."
    )
    run_name: Mapped[Name] = mapped_column(comment="For people.")
    run_description: Mapped[LongText | None] = mapped_column(comment="For people.")
    run_fingerprint: Mapped[str] = mapped_column(
        String(64), comment="SHA-256 of everything that decides the result."
    )
    status: Mapped[str] = mapped_column(
        String(50),
        server_default="running",
        comment="running, completed, failed, killed or scheduled.",
    )
    lifecycle_stage: Mapped[str] = mapped_column(
        String(50), server_default="active", comment="deleted: another attempt took its place."
    )
    start_time: Mapped[CreatedAt] = mapped_column(comment="On the server's clock.")
    end_time: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="On the server's clock."
    )
    execution_duration_seconds: Mapped[Decimal | None] = mapped_column(
        Numeric(12, 3), comment="From start_time to end_time."
    )
    source_type: Mapped[str | None] = mapped_column(String(50), comment="What started it.")
    source_name: Mapped[LongText | None] = mapped_column(comment="The code that ran.")
    git_commit_hash: Mapped[str | None] = mapped_column(String(40), comment="Of the code that ran.")
    git_branch: Mapped[Name | None] = mapped_column(comment="Of the code that ran.")
    git_repo_url: Mapped[LongText | None] = mapped_column(comment="Of the code that ran.")
    user_id: Mapped[Name | None] = mapped_column(comment="Who ran it.")
    error_message: Mapped[LongText | None] = mapped_column(
        comment="Why it failed or was killed, in one line."
    )
    quarter_start: Mapped[date | None] = mapped_column(Date, comment="First day of the quarter.")
    tags: Mapped[Tags] = mapped_column(comment="kind, quarter, model and labels of users.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Environment, and what the run came to.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )
    deleted_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Set when a later attempt took this run's place."
    )

    __table_args__ = (
        CheckConstraint(
            one_of("status", "running", "completed", "failed", "killed", "scheduled"),
            "ck_runs_status",
        ),
        CheckConstraint(one_of("lifecycle_stage", "active", "deleted"), "ck_runs_lifecycle"),
        CheckConstraint(
            one_of("source_type", "notebook", "script", "cli", "api", "scheduled"),
            "ck_runs_source_type",
        ),
        CheckConstraint(
            "execution_duration_seconds IS NULL OR execution_duration_seconds >= 0",
            "ck_runs_duration",
        ),
        Index("idx_runs_experiment_id", "experiment_id"),
        Index("idx_runs_fingerprint", "run_fingerprint"),
        Index("idx_runs_status", "status"),
        Index("idx_runs_start_time", text("start_time DESC")),
        Index(
            "idx_runs_parent_run",
            "parent_run_id",
            postgresql_where=text("parent_run_id IS NOT NULL"),
        ),
        Index("idx_runs_tags", "tags", postgresql_using="gin"),
        Index("idx_runs_metadata_gin", "metadata", postgresql_using="gin"),
        Index("idx_runs_composite", "experiment_id", "status", text("start_time DESC")),
        Index("idx_runs_exp_status_start", "experiment_id", "status", text("start_time DESC")),
        Index(
            "idx_runs_running",
            text("start_time DESC"),
            postgresql_where=text("status = 'running'"),
        ),
        Index(
            "idx_runs_unique_fingerprint",
            "experiment_id",
            "run_fingerprint",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        {
            "comment": "One row a computation, with the fingerprint that keeps it from being repeated."
        },
    )
