"""Forecasts: a table partitioned by quarter, and each quarter by pipeline.

A leaf holds one slice. Making leaves and swapping them in is ``db.partitions`` and
``predictions.slice``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Sequence,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ts_forecast.tables.base import Base, CreatedAt

_FINITE = "{0} > '-Infinity'::float8 AND {0} < 'Infinity'::float8"
PREDICTION_ID = Sequence("predictions_prediction_id_seq", metadata=Base.metadata)


class Prediction(Base):
    """One forecast: a model's value for a series and a date, so many steps ahead of its cutoff."""

    __tablename__ = "predictions"

    prediction_id: Mapped[int] = mapped_column(
        BigInteger,
        PREDICTION_ID,
        server_default=PREDICTION_ID.next_value(),
        comment="A number for references; not the key, which has to hold the partition columns.",
    )
    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"), comment="The pipeline."
    )
    run_id: Mapped[int] = mapped_column(
        ForeignKey("runs.run_id", ondelete="CASCADE"), comment="The run that issued it."
    )
    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.model_id", ondelete="CASCADE"), comment="The model that made it."
    )
    prediction_date: Mapped[datetime] = mapped_column(DateTime, comment="The date forecast.")
    unique_id: Mapped[str] = mapped_column(Text, comment="The series.")
    horizon: Mapped[int] = mapped_column(
        Integer, comment="Steps ahead: the cutoff lies so many steps before prediction_date."
    )
    predicted_value: Mapped[float] = mapped_column(
        Double, comment="The median where the pipeline has levels, else the model's point forecast."
    )
    actual_value: Mapped[float | None] = mapped_column(
        Double, comment="NULL where nothing was observed."
    )
    lower_bound: Mapped[float | None] = mapped_column(
        Double, comment="Of the pipeline's first level."
    )
    upper_bound: Mapped[float | None] = mapped_column(
        Double, comment="Of the pipeline's first level."
    )
    confidence_level: Mapped[float | None] = mapped_column(
        Double, server_default=text("0.95"), comment="Of lower_bound to upper_bound."
    )
    quantiles: Mapped[list[float] | None] = mapped_column(
        ARRAY(Double),
        comment="Ascending, at the probabilities of models.model_config->'quantiles'.",
    )
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Whatever else is known, as a JSON object.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When it was stored.")

    __table_args__ = (
        PrimaryKeyConstraint(
            "experiment_id",
            "model_id",
            "unique_id",
            "prediction_date",
            "horizon",
            name="pk_predictions",
        ),
        CheckConstraint("horizon > 0", "ck_predictions_horizon"),
        CheckConstraint(
            "confidence_level > 0 AND confidence_level < 1", "ck_predictions_confidence"
        ),
        CheckConstraint("unique_id <> '' AND length(unique_id) <= 255", "ck_predictions_unique_id"),
        CheckConstraint(
            " AND ".join(
                f"({_FINITE.format(column)})"
                for column in ("predicted_value", "actual_value", "lower_bound", "upper_bound")
            ),
            "ck_predictions_finite",
        ),
        Index("idx_predictions_composite", "unique_id", text("prediction_date DESC"), "horizon"),
        {
            "postgresql_partition_by": "RANGE (prediction_date)",
            "comment": "Forecasts; a partition a quarter, in it a leaf a pipeline.",
        },
    )
