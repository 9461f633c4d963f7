"""Models and the parameters that their runs were given."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
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


class Model(Base):
    """A fitted model: what forecasts one quarter."""

    __tablename__ = "models"

    model_id: Mapped[BigId] = mapped_column(comment="Key.")
    model_uuid: Mapped[UUID] = mapped_column(
        unique=True,
        server_default=text("gen_random_uuid()"),
        comment="The same row under a name that is unique everywhere.",
    )
    run_id: Mapped[int] = mapped_column(
        ForeignKey("runs.run_id", ondelete="CASCADE"), comment="The run that fitted it."
    )
    model_name: Mapped[Name] = mapped_column(comment="Its name in the pipeline file.")
    model_type: Mapped[str] = mapped_column(String(100), comment="Class name, e.g. NHITS.")
    model_version: Mapped[str] = mapped_column(
        String(50),
        server_default="1.0.0",
        comment="Of the model's definition; fitted versions are in model_registry.",
    )
    framework: Mapped[str] = mapped_column(String(50), comment="The library that fitted it.")
    framework_version: Mapped[str | None] = mapped_column(String(50), comment="Its version.")
    model_config: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="Horizon, frequency, quantile probabilities, exogenous columns."
    )
    hyperparameters: Mapped[dict[str, Any]] = mapped_column(
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="As the model was built; of a search, the best trial's.",
    )
    training_dataset_id: Mapped[int | None] = mapped_column(
        ForeignKey("datasets.dataset_id"),
        comment="The last quarter of the window; all of them are in metadata.",
    )
    training_samples: Mapped[int | None] = mapped_column(
        Integer, comment="Observations that it was fitted on."
    )
    training_duration_seconds: Mapped[Decimal | None] = mapped_column(
        Numeric(12, 3), comment="Of the fit."
    )
    model_size_bytes: Mapped[int | None] = mapped_column(BigInteger, comment="Of all of its files.")
    model_file_path: Mapped[LongText] = mapped_column(comment="Its file or folder.")
    checkpoint_path: Mapped[LongText | None] = mapped_column(comment="Left to users.")
    status: Mapped[str] = mapped_column(
        String(50),
        server_default="training",
        comment="trained; evaluated once its forecasts are scored; others for users.",
    )
    quarter_start: Mapped[date | None] = mapped_column(
        Date, comment="First day of the quarter that it forecasts; it has seen nothing of it."
    )
    tags: Mapped[Tags] = mapped_column(comment="Labels, as a JSON object; counted in tags.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata",
        JSONB,
        server_default=text("'{}'::jsonb"),
        comment="Hash of its files, fingerprint, datasets that it was fitted on, final loss.",
    )
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        CheckConstraint(
            one_of(
                "status",
                "training",
                "trained",
                "evaluating",
                "evaluated",
                "deployed",
                "archived",
                "failed",
            ),
            "ck_models_status",
        ),
        CheckConstraint(
            one_of(
                "framework",
                "neuralforecast",
                "statsforecast",
                "pytorch",
                "tensorflow",
                "sklearn",
                "darts",
                "gluonts",
                "prophet",
                "ts_forecast",
            ),
            "ck_models_framework",
        ),
        CheckConstraint(
            "training_samples IS NULL OR training_samples > 0", "ck_models_training_samples"
        ),
        CheckConstraint("model_size_bytes IS NULL OR model_size_bytes > 0", "ck_models_size"),
        Index("idx_models_run_id", "run_id"),
        Index("idx_models_name", "model_name"),
        Index("idx_models_type", "model_type"),
        Index("idx_models_framework", "framework"),
        Index("idx_models_status", "status"),
        Index("idx_models_created_at", text("created_at DESC")),
        Index("idx_models_type_created", "model_type", text("created_at DESC")),
        Index("idx_models_training_dataset_id", "training_dataset_id"),
        Index("idx_models_config", "model_config", postgresql_using="gin"),
        Index("idx_models_config_gin", "model_config", postgresql_using="gin"),
        Index("idx_models_tags", "tags", postgresql_using="gin"),
        {"comment": "Fitted models: one a pipeline, model and quarter, and each repetition."},
    )


class Hyperparameter(Base):
    """One parameter of a run."""

    __tablename__ = "hyperparameters"

    hyperparameter_id: Mapped[BigId] = mapped_column(comment="Key.")
    run_id: Mapped[int] = mapped_column(
        ForeignKey("runs.run_id", ondelete="CASCADE"), comment="The run."
    )
    param_key: Mapped[Name] = mapped_column(comment="The parameter's name.")
    param_value: Mapped[LongText] = mapped_column(comment="As text.")
    param_type: Mapped[str] = mapped_column(
        String(50), server_default="string", comment="How param_value is to be read."
    )
    is_hyperparameter: Mapped[bool | None] = mapped_column(
        Boolean,
        server_default=text("true"),
        comment="false: a setting of the run rather than of the model.",
    )
    param_category: Mapped[str | None] = mapped_column(String(100), comment="model or pipeline.")
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")

    __table_args__ = (
        CheckConstraint(
            one_of("param_type", "string", "integer", "float", "boolean", "json"), "ck_params_type"
        ),
        UniqueConstraint("run_id", "param_key", name="uq_run_param_key"),
        Index("idx_params_run_id", "run_id"),
        Index("idx_params_key", "param_key"),
        Index(
            "idx_params_category",
            "param_category",
            postgresql_where=text("param_category IS NOT NULL"),
        ),
        {"comment": "Parameters of runs, one row each, to be compared in SQL."},
    )


class SearchSpace(Base):
    """A named space of hyperparameters, for pipeline files to refer to."""

    __tablename__ = "hyperparameter_search_spaces"

    search_space_id: Mapped[BigId] = mapped_column(comment="Key.")
    space_name: Mapped[Name] = mapped_column(unique=True, comment="What pipeline files call it.")
    space_description: Mapped[LongText | None] = mapped_column(comment="For people.")
    model_type: Mapped[str] = mapped_column(String(100), comment="The model it is for: NHITS.")
    framework: Mapped[str] = mapped_column(
        String(50), comment="neuralforecast, or another library."
    )
    search_space_definition: Mapped[dict[str, Any]] = mapped_column(
        JSONB,
        comment="Per parameter: a constant, values, or low and high; see ts_forecast.search_space.",
    )
    created_by: Mapped[Name | None] = mapped_column(comment="Who made it.")
    is_active: Mapped[bool | None] = mapped_column(
        Boolean, server_default=text("true"), comment="false: pipeline files may not name it."
    )
    tags: Mapped[Tags] = mapped_column(comment="Labels, as a JSON object; counted in tags.")
    created_at: Mapped[CreatedAt] = mapped_column(comment="When the row was made.")
    updated_at: Mapped[CreatedAt] = mapped_column(
        comment="When the row last changed; a trigger keeps it."
    )

    __table_args__ = (
        Index("idx_search_space_model", "model_type"),
        Index("idx_search_space_active", "is_active", postgresql_where=text("is_active = true")),
        {"comment": "Search spaces of hyperparameters, by name."},
    )
