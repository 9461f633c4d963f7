"""Metrics (by step and by context) and their distribution over series."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, BigId, CreatedAt, one_of


class Metric(Base):
    """One number of a run: a loss at a step, or an accuracy in a context."""

    __tablename__ = "metrics"

    metric_id: Mapped[BigId] = mapped_column(comment="Key.")
    run_id: Mapped[int] = mapped_column(
        ForeignKey("runs.run_id", ondelete="CASCADE"), comment="The run."
    )
    model_id: Mapped[int | None] = mapped_column(
        ForeignKey("models.model_id", ondelete="CASCADE"), comment="The model, if it is of one."
    )
    metric_name: Mapped[str] = mapped_column(String(100), comment="mae, train_loss and the like.")
    metric_value: Mapped[float] = mapped_column(Double, comment="Finite.")
    metric_step: Mapped[int | None] = mapped_column(
        Integer, server_default=text("0"), comment="Training step."
    )
    dataset_type: Mapped[str] = mapped_column(
        String(50), server_default="validation", comment="What it was measured on."
    )
    evaluation_context: Mapped[str | None] = mapped_column(
        String(100), comment="E.g. 2025-Q2/1-6: the quarter and the horizon bucket."
    )
    timestamp: Mapped[CreatedAt] = mapped_column(comment="When it was measured.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )

    __table_args__ = (
        CheckConstraint(
            one_of("dataset_type", "train", "validation", "test", "production"),
            "ck_metrics_dataset_type",
        ),
        CheckConstraint("metric_step >= 0", "ck_metrics_step"),
        Index("idx_metrics_run_id", "run_id"),
        Index("idx_metrics_model_id", "model_id"),
        Index("idx_metrics_name", "metric_name"),
        Index("idx_metrics_timestamp", text("timestamp DESC")),
        Index("idx_metrics_run_name_step", "run_id", "metric_name", "metric_step"),
        Index("idx_metrics_composite", "run_id", "metric_name", "dataset_type", "metric_step"),
        {"comment": "Loss curves and accuracies of runs."},
    )


class MetricSummary(Base):
    """The distribution of a metric over the series of one quarter."""

    __tablename__ = "metric_summaries"

    summary_id: Mapped[BigId] = mapped_column(comment="Key.")
    run_id: Mapped[int] = mapped_column(
        ForeignKey("runs.run_id", ondelete="CASCADE"), comment="The evaluation."
    )
    model_id: Mapped[int | None] = mapped_column(
        ForeignKey("models.model_id", ondelete="CASCADE"), comment="The model."
    )
    metric_name: Mapped[str] = mapped_column(String(100), comment="As utilsforecast names it.")
    dataset_type: Mapped[str] = mapped_column(
        String(50), comment="test: the quarter, which no model has seen."
    )
    horizon_bucket: Mapped[str] = mapped_column(
        String(20), server_default="all", comment="Steps ahead, e.g. 1-6; all for every step."
    )
    quarter_start: Mapped[date | None] = mapped_column(Date, comment="First day of the quarter.")
    min_value: Mapped[float | None] = mapped_column(Double, comment="Over series.")
    max_value: Mapped[float | None] = mapped_column(Double, comment="Over series.")
    mean_value: Mapped[float | None] = mapped_column(Double, comment="Over series.")
    median_value: Mapped[float | None] = mapped_column(Double, comment="Over series.")
    std_value: Mapped[float | None] = mapped_column(Double, comment="Over series.")
    q1_value: Mapped[float | None] = mapped_column(Double, comment="First quartile over series.")
    q3_value: Mapped[float | None] = mapped_column(Double, comment="Third quartile over series.")
    skill: Mapped[float | None] = mapped_column(
        Double, comment="1 - mean / the baseline's mean; NULL without a baseline."
    )
    sample_count: Mapped[int] = mapped_column(Integer, comment="Series.")
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        UniqueConstraint(
            "run_id",
            "model_id",
            "metric_name",
            "dataset_type",
            "horizon_bucket",
            name="uq_summary_run_metric",
            postgresql_nulls_not_distinct=True,
        ),
        Index("idx_summary_run_id", "run_id"),
        Index("idx_summary_model_id", "model_id"),
        Index("idx_summary_metric", "metric_name"),
        {"comment": "Per model, metric and horizon: the distribution over series."},
    )
