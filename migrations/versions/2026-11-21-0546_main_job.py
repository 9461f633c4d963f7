"""The tables of the main job.

Experiments, runs, models and their registry, datasets and their profile, metrics, hyperparameters,
artifacts, and the partitioned predictions, as the database design asks with its errata.

Predictions have two indexes, not the design's five: their primary key starts with the pipeline and the
model, and (unique_id, prediction_date DESC, horizon) serves one series; those on run_id, model_id,
prediction_date and unique_id alone cost more on writing than any query gains. Partitions are not made
here but when a slice is published.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TOUCHED = (
    "experiments",
    "runs",
    "models",
    "model_registry",
    "datasets",
    "dataset_features",
    "metric_summaries",
    "artifacts",
)
_TABLES = (
    "predictions",
    "artifacts",
    "hyperparameters",
    "metric_summaries",
    "metrics",
    "model_registry",
    "models",
    "dataset_features",
    "datasets",
    "runs",
    "experiments",
)


def upgrade() -> None:
    op.execute("CREATE SEQUENCE predictions_prediction_id_seq AS bigint")
    op.create_table(
        "datasets",
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "dataset_uuid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column(
            "dataset_name",
            sa.String(length=255),
            nullable=False,
            comment="<pipeline>/<quarter>, or the file's path.",
        ),
        sa.Column("dataset_description", sa.Text(), nullable=True),
        sa.Column("dataset_type", sa.String(length=50), nullable=False),
        sa.Column("file_path", sa.Text(), nullable=False),
        sa.Column("file_format", sa.String(length=50), server_default="csv", nullable=False),
        sa.Column("file_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "file_hash", sa.String(length=64), nullable=True, comment="SHA-256 of the file's bytes."
        ),
        sa.Column("num_rows", sa.Integer(), nullable=True),
        sa.Column("num_columns", sa.Integer(), nullable=True),
        sa.Column("num_time_series", sa.Integer(), nullable=True),
        sa.Column("date_column", sa.String(length=100), nullable=True),
        sa.Column("target_column", sa.String(length=100), nullable=True),
        sa.Column("frequency", sa.String(length=20), nullable=True),
        sa.Column("start_date", sa.DateTime(), nullable=True),
        sa.Column("end_date", sa.DateTime(), nullable=True),
        sa.Column("schema_definition", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("column_types", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("missing_values_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column("duplicate_rows_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column("version", sa.String(length=50), server_default="1.0.0", nullable=True),
        sa.Column(
            "parent_dataset_id",
            sa.BigInteger(),
            nullable=True,
            comment="The version that this one restates; of a first version, the raw file.",
        ),
        sa.Column("quarter_start", sa.Date(), nullable=True, comment="NULL for raw files."),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "dataset_type IN ('raw', 'processed', 'training', 'validation', 'test', 'production')",
            name=op.f("ck_datasets_type"),
        ),
        sa.CheckConstraint(
            "file_format IN ('csv', 'parquet', 'json', 'feather')", name=op.f("ck_datasets_format")
        ),
        sa.CheckConstraint(
            "num_columns IS NULL OR num_columns > 0", name=op.f("ck_datasets_columns")
        ),
        sa.CheckConstraint("num_rows IS NULL OR num_rows >= 0", name=op.f("ck_datasets_rows")),
        sa.ForeignKeyConstraint(
            ["parent_dataset_id"],
            ["datasets.dataset_id"],
            name=op.f("fk_datasets_parent_dataset_id"),
        ),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("dataset_uuid", name=op.f("uq_datasets_dataset_uuid")),
        comment="Source files and the quarterly datasets made from them, every version.",
    )
    op.create_index(
        "idx_datasets_created_at", "datasets", [sa.literal_column("created_at DESC")], unique=False
    )
    op.create_index("idx_datasets_file_hash", "datasets", ["file_hash"], unique=False)
    op.create_index("idx_datasets_name", "datasets", ["dataset_name"], unique=False)
    op.create_index(
        "idx_datasets_parent",
        "datasets",
        ["parent_dataset_id"],
        unique=False,
        postgresql_where=sa.text("parent_dataset_id IS NOT NULL"),
    )
    op.create_index("idx_datasets_type", "datasets", ["dataset_type"], unique=False)
    op.create_table(
        "experiments",
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "experiment_name", sa.String(length=255), nullable=False, comment="The pipeline's name."
        ),
        sa.Column("experiment_description", sa.Text(), nullable=True),
        sa.Column(
            "experiment_type", sa.String(length=50), server_default="training", nullable=False
        ),
        sa.Column("status", sa.String(length=50), server_default="active", nullable=False),
        sa.Column(
            "lifecycle_stage",
            sa.String(length=50),
            server_default="active",
            nullable=False,
            comment="As MLflow's lifecycle stage.",
        ),
        sa.Column("created_by", sa.String(length=255), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
            comment="Free-form labels.",
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
            comment="The pipeline's definition as it was last read.",
        ),
        sa.CheckConstraint(
            "experiment_type IN ('training', 'testing', 'production', 'development')",
            name=op.f("ck_experiments_type"),
        ),
        sa.CheckConstraint(
            "lifecycle_stage IN ('active', 'deleted', 'archived')",
            name=op.f("ck_experiments_lifecycle"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'archived', 'deleted')", name=op.f("ck_experiments_status")
        ),
        sa.PrimaryKeyConstraint("experiment_id", name=op.f("pk_experiments")),
        comment="One row a pipeline: what its runs, models and forecasts belong to.",
    )
    op.create_index(
        "idx_experiments_created_at",
        "experiments",
        [sa.literal_column("created_at DESC")],
        unique=False,
    )
    op.create_index("idx_experiments_name", "experiments", ["experiment_name"], unique=False)
    op.create_index(
        "idx_experiments_status",
        "experiments",
        ["status"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "idx_experiments_tags", "experiments", ["tags"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        "uq_experiments_active_name",
        "experiments",
        ["experiment_name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "dataset_features",
        sa.Column("feature_id", sa.BigInteger(), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("feature_name", sa.String(length=255), nullable=False),
        sa.Column("feature_type", sa.String(length=50), nullable=False),
        sa.Column("data_type", sa.String(length=50), nullable=False),
        sa.Column("min_value", sa.Double(), nullable=True),
        sa.Column("max_value", sa.Double(), nullable=True),
        sa.Column("mean_value", sa.Double(), nullable=True),
        sa.Column("median_value", sa.Double(), nullable=True),
        sa.Column("std_value", sa.Double(), nullable=True),
        sa.Column("num_unique_values", sa.Integer(), nullable=True),
        sa.Column("unique_values", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("missing_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column(
            "missing_percentage",
            sa.Numeric(precision=5, scale=2),
            server_default=sa.text("0.00"),
            nullable=True,
        ),
        sa.Column("feature_role", sa.String(length=50), nullable=True),
        sa.Column("is_target", sa.Boolean(), server_default=sa.text("false"), nullable=True),
        sa.Column("is_exogenous", sa.Boolean(), server_default=sa.text("false"), nullable=True),
        sa.Column(
            "exogenous_type",
            sa.String(length=50),
            nullable=True,
            comment="future: known ahead; historic: up to the cutoff; static.",
        ),
        sa.Column("importance_score", sa.Double(), nullable=True),
        sa.Column("correlation_with_target", sa.Double(), nullable=True),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "exogenous_type IS NULL OR exogenous_type IN ('future', 'historic', 'static')",
            name=op.f("ck_features_exog_type"),
        ),
        sa.CheckConstraint(
            "feature_role IN ('target', 'feature', 'id', 'timestamp', 'weight', 'ignore')",
            name=op.f("ck_features_role"),
        ),
        sa.CheckConstraint(
            "feature_type IN ('numeric', 'categorical', 'datetime', 'text', 'boolean')",
            name=op.f("ck_features_type"),
        ),
        sa.CheckConstraint(
            "missing_percentage >= 0 AND missing_percentage <= 100",
            name=op.f("ck_features_missing_pct"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.dataset_id"],
            name=op.f("fk_dataset_features_dataset_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("feature_id", name=op.f("pk_dataset_features")),
        sa.UniqueConstraint("dataset_id", "feature_name", name="uq_dataset_feature"),
        comment="A profile of every column of a dataset.",
    )
    op.create_index("idx_features_dataset_id", "dataset_features", ["dataset_id"], unique=False)
    op.create_index("idx_features_name", "dataset_features", ["feature_name"], unique=False)
    op.create_index("idx_features_role", "dataset_features", ["feature_role"], unique=False)
    op.create_index(
        "idx_features_target",
        "dataset_features",
        ["is_target"],
        unique=False,
        postgresql_where=sa.text("is_target = true"),
    )
    op.create_index("idx_features_type", "dataset_features", ["feature_type"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "run_uuid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "parent_run_id", sa.BigInteger(), nullable=True, comment="The search of a trial, say."
        ),
        sa.Column("run_name", sa.String(length=255), nullable=False),
        sa.Column("run_description", sa.Text(), nullable=True),
        sa.Column(
            "run_fingerprint",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of everything that decides the result.",
        ),
        sa.Column("status", sa.String(length=50), server_default="running", nullable=False),
        sa.Column("lifecycle_stage", sa.String(length=50), server_default="active", nullable=False),
        sa.Column(
            "start_time",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("execution_duration_seconds", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("source_type", sa.String(length=50), nullable=True),
        sa.Column("source_name", sa.Text(), nullable=True),
        sa.Column("git_commit_hash", sa.String(length=40), nullable=True),
        sa.Column("git_branch", sa.String(length=255), nullable=True),
        sa.Column("git_repo_url", sa.Text(), nullable=True),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("quarter_start", sa.Date(), nullable=True, comment="First day of the quarter."),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Set when a later attempt took this run's place.",
        ),
        sa.CheckConstraint(
            "lifecycle_stage IN ('active', 'deleted')", name=op.f("ck_runs_lifecycle")
        ),
        sa.CheckConstraint(
            "source_type IN ('notebook', 'script', 'cli', 'api', 'scheduled')",
            name=op.f("ck_runs_source_type"),
        ),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'killed', 'scheduled')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint(
            "execution_duration_seconds IS NULL OR execution_duration_seconds >= 0",
            name=op.f("ck_runs_duration"),
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.experiment_id"],
            name=op.f("fk_runs_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["parent_run_id"],
            ["runs.run_id"],
            name=op.f("fk_runs_parent_run_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
        sa.UniqueConstraint("run_uuid", name=op.f("uq_runs_run_uuid")),
        comment="One row a computation, with the fingerprint that keeps it from being repeated.",
    )
    op.create_index(
        "idx_runs_composite",
        "runs",
        ["experiment_id", "status", sa.literal_column("start_time DESC")],
        unique=False,
    )
    op.create_index("idx_runs_experiment_id", "runs", ["experiment_id"], unique=False)
    op.create_index("idx_runs_fingerprint", "runs", ["run_fingerprint"], unique=False)
    op.create_index(
        "idx_runs_parent_run",
        "runs",
        ["parent_run_id"],
        unique=False,
        postgresql_where=sa.text("parent_run_id IS NOT NULL"),
    )
    op.create_index(
        "idx_runs_start_time", "runs", [sa.literal_column("start_time DESC")], unique=False
    )
    op.create_index("idx_runs_status", "runs", ["status"], unique=False)
    op.create_index("idx_runs_tags", "runs", ["tags"], unique=False, postgresql_using="gin")
    op.create_index(
        "idx_runs_unique_fingerprint",
        "runs",
        ["experiment_id", "run_fingerprint"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "artifacts",
        sa.Column("artifact_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "artifact_uuid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("artifact_name", sa.String(length=255), nullable=False),
        sa.Column("artifact_type", sa.String(length=100), nullable=False),
        sa.Column("artifact_path", sa.Text(), nullable=False),
        sa.Column("file_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("file_format", sa.String(length=50), nullable=True),
        sa.Column("mime_type", sa.String(length=100), nullable=True),
        sa.Column(
            "file_hash",
            sa.String(length=64),
            nullable=True,
            comment="SHA-256 of the content; of a folder, of its names and contents.",
        ),
        sa.Column("storage_type", sa.String(length=50), server_default="local", nullable=False),
        sa.Column("storage_path", sa.Text(), nullable=False, comment="Where it lies, as a URI."),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column("is_public", sa.Boolean(), server_default=sa.text("false"), nullable=True),
        sa.Column("access_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column("last_accessed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "artifact_type IN ('model', 'checkpoint', 'prediction', 'plot', 'log', 'config', 'report', 'data', 'other')",
            name=op.f("ck_artifacts_type"),
        ),
        sa.CheckConstraint(
            "storage_type IN ('local', 's3', 'gcs', 'azure', 'mlflow', 'wandb')",
            name=op.f("ck_artifacts_storage"),
        ),
        sa.CheckConstraint(
            "file_size_bytes IS NULL OR file_size_bytes >= 0", name=op.f("ck_artifacts_size")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_artifacts_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("artifact_id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("artifact_uuid", name=op.f("uq_artifacts_artifact_uuid")),
        comment="Files that runs produced, with their hashes.",
    )
    op.create_index(
        "idx_artifacts_created_at",
        "artifacts",
        [sa.literal_column("created_at DESC")],
        unique=False,
    )
    op.create_index("idx_artifacts_hash", "artifacts", ["file_hash"], unique=False)
    op.create_index("idx_artifacts_name", "artifacts", ["artifact_name"], unique=False)
    op.create_index("idx_artifacts_run_id", "artifacts", ["run_id"], unique=False)
    op.create_index(
        "idx_artifacts_tags", "artifacts", ["tags"], unique=False, postgresql_using="gin"
    )
    op.create_index("idx_artifacts_type", "artifacts", ["artifact_type"], unique=False)
    op.create_table(
        "hyperparameters",
        sa.Column("hyperparameter_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("param_key", sa.String(length=255), nullable=False),
        sa.Column("param_value", sa.Text(), nullable=False),
        sa.Column("param_type", sa.String(length=50), server_default="string", nullable=False),
        sa.Column(
            "is_hyperparameter",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=True,
            comment="false: a setting of the run rather than of the model.",
        ),
        sa.Column("param_category", sa.String(length=100), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "param_type IN ('string', 'integer', 'float', 'boolean', 'json')",
            name=op.f("ck_params_type"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_hyperparameters_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hyperparameter_id", name=op.f("pk_hyperparameters")),
        sa.UniqueConstraint("run_id", "param_key", name="uq_run_param_key"),
        comment="Parameters of runs, one row each, to be compared in SQL.",
    )
    op.create_index(
        "idx_params_category",
        "hyperparameters",
        ["param_category"],
        unique=False,
        postgresql_where=sa.text("param_category IS NOT NULL"),
    )
    op.create_index("idx_params_key", "hyperparameters", ["param_key"], unique=False)
    op.create_index("idx_params_run_id", "hyperparameters", ["run_id"], unique=False)
    op.create_table(
        "models",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "model_uuid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "model_name",
            sa.String(length=255),
            nullable=False,
            comment="Its name in the pipeline file.",
        ),
        sa.Column(
            "model_type", sa.String(length=100), nullable=False, comment="Class name, e.g. NHITS."
        ),
        sa.Column("model_version", sa.String(length=50), server_default="1.0.0", nullable=False),
        sa.Column("framework", sa.String(length=50), nullable=False),
        sa.Column("framework_version", sa.String(length=50), nullable=True),
        sa.Column(
            "model_config",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Horizon, frequency, quantile probabilities, exogenous columns.",
        ),
        sa.Column(
            "hyperparameters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("training_dataset_id", sa.BigInteger(), nullable=True),
        sa.Column("training_samples", sa.Integer(), nullable=True),
        sa.Column("training_duration_seconds", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("model_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("model_file_path", sa.Text(), nullable=False),
        sa.Column("checkpoint_path", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=50), server_default="training", nullable=False),
        sa.Column(
            "quarter_start",
            sa.Date(),
            nullable=True,
            comment="First day of the quarter that it forecasts; it has seen nothing of it.",
        ),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "framework IN ('neuralforecast', 'statsforecast', 'pytorch', 'tensorflow', 'sklearn', 'darts', 'gluonts', 'prophet')",
            name=op.f("ck_models_framework"),
        ),
        sa.CheckConstraint(
            "status IN ('training', 'trained', 'evaluating', 'evaluated', 'deployed', 'archived', 'failed')",
            name=op.f("ck_models_status"),
        ),
        sa.CheckConstraint(
            "model_size_bytes IS NULL OR model_size_bytes > 0", name=op.f("ck_models_size")
        ),
        sa.CheckConstraint(
            "training_samples IS NULL OR training_samples > 0",
            name=op.f("ck_models_training_samples"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_models_run_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["training_dataset_id"],
            ["datasets.dataset_id"],
            name=op.f("fk_models_training_dataset_id"),
        ),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_models")),
        sa.UniqueConstraint("model_uuid", name=op.f("uq_models_model_uuid")),
        comment="Fitted models: one a pipeline, model and quarter, and each repetition.",
    )
    op.create_index(
        "idx_models_config", "models", ["model_config"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        "idx_models_created_at", "models", [sa.literal_column("created_at DESC")], unique=False
    )
    op.create_index("idx_models_framework", "models", ["framework"], unique=False)
    op.create_index("idx_models_name", "models", ["model_name"], unique=False)
    op.create_index("idx_models_run_id", "models", ["run_id"], unique=False)
    op.create_index("idx_models_status", "models", ["status"], unique=False)
    op.create_index("idx_models_tags", "models", ["tags"], unique=False, postgresql_using="gin")
    op.create_index("idx_models_type", "models", ["model_type"], unique=False)
    op.create_table(
        "metric_summaries",
        sa.Column("summary_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=True),
        sa.Column("metric_name", sa.String(length=100), nullable=False),
        sa.Column("dataset_type", sa.String(length=50), nullable=False),
        sa.Column(
            "horizon_bucket",
            sa.String(length=20),
            server_default="all",
            nullable=False,
            comment="Steps ahead, e.g. 1-6; all for every step.",
        ),
        sa.Column("quarter_start", sa.Date(), nullable=True),
        sa.Column("min_value", sa.Double(), nullable=True),
        sa.Column("max_value", sa.Double(), nullable=True),
        sa.Column("mean_value", sa.Double(), nullable=True),
        sa.Column("median_value", sa.Double(), nullable=True),
        sa.Column("std_value", sa.Double(), nullable=True),
        sa.Column("q1_value", sa.Double(), nullable=True),
        sa.Column("q3_value", sa.Double(), nullable=True),
        sa.Column(
            "skill",
            sa.Double(),
            nullable=True,
            comment="1 - mean / the baseline's mean; NULL without a baseline.",
        ),
        sa.Column("sample_count", sa.Integer(), nullable=False, comment="Series."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["models.model_id"],
            name=op.f("fk_metric_summaries_model_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_metric_summaries_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("summary_id", name=op.f("pk_metric_summaries")),
        sa.UniqueConstraint(
            "run_id",
            "model_id",
            "metric_name",
            "dataset_type",
            "horizon_bucket",
            name="uq_summary_run_metric",
            postgresql_nulls_not_distinct=True,
        ),
        comment="Per model, metric and horizon: the distribution over series.",
    )
    op.create_index("idx_summary_metric", "metric_summaries", ["metric_name"], unique=False)
    op.create_index("idx_summary_model_id", "metric_summaries", ["model_id"], unique=False)
    op.create_index("idx_summary_run_id", "metric_summaries", ["run_id"], unique=False)
    op.create_table(
        "metrics",
        sa.Column("metric_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=True),
        sa.Column("metric_name", sa.String(length=100), nullable=False),
        sa.Column("metric_value", sa.Double(), nullable=False),
        sa.Column(
            "metric_step",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=True,
            comment="Training step.",
        ),
        sa.Column(
            "dataset_type", sa.String(length=50), server_default="validation", nullable=False
        ),
        sa.Column(
            "evaluation_context",
            sa.String(length=100),
            nullable=True,
            comment="E.g. 2025-Q2/1-6: the quarter and the horizon bucket.",
        ),
        sa.Column(
            "timestamp",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.CheckConstraint(
            "dataset_type IN ('train', 'validation', 'test', 'production')",
            name=op.f("ck_metrics_dataset_type"),
        ),
        sa.CheckConstraint("metric_step >= 0", name=op.f("ck_metrics_step")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name=op.f("fk_metrics_model_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_metrics_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("metric_id", name=op.f("pk_metrics")),
        comment="Loss curves and accuracies of runs.",
    )
    op.create_index(
        "idx_metrics_composite",
        "metrics",
        ["run_id", "metric_name", "dataset_type", "metric_step"],
        unique=False,
    )
    op.create_index("idx_metrics_model_id", "metrics", ["model_id"], unique=False)
    op.create_index("idx_metrics_name", "metrics", ["metric_name"], unique=False)
    op.create_index("idx_metrics_run_id", "metrics", ["run_id"], unique=False)
    op.create_index(
        "idx_metrics_timestamp", "metrics", [sa.literal_column("timestamp DESC")], unique=False
    )
    op.create_table(
        "model_registry",
        sa.Column("registry_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "registered_model_name",
            sa.String(length=255),
            nullable=False,
            comment="<pipeline>/<model>",
        ),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column(
            "current_stage",
            sa.String(length=50),
            server_default="staging",
            nullable=False,
            comment="none, staging, production or archived",
        ),
        sa.Column("previous_stage", sa.String(length=50), nullable=True),
        sa.Column("stage_transition_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.String(length=255), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approval_notes", sa.Text(), nullable=True),
        sa.Column("deployed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deployment_target", sa.String(length=100), nullable=True),
        sa.Column(
            "production_metrics",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
            comment="Accuracy measured in production.",
        ),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "current_stage IN ('staging', 'production', 'archived', 'none')",
            name=op.f("ck_registry_stage"),
        ),
        sa.CheckConstraint("model_version > 0", name=op.f("ck_registry_version")),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["models.model_id"],
            name=op.f("fk_model_registry_model_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("registry_id", name=op.f("pk_model_registry")),
        sa.UniqueConstraint(
            "registered_model_name", "model_version", name="uq_registry_name_version"
        ),
        comment="Versions of registered models and their stages.",
    )
    op.create_index(
        "idx_registry_deployed_at",
        "model_registry",
        [sa.literal_column("deployed_at DESC")],
        unique=False,
        postgresql_where=sa.text("deployed_at IS NOT NULL"),
    )
    op.create_index("idx_registry_model_id", "model_registry", ["model_id"], unique=False)
    op.create_index("idx_registry_name", "model_registry", ["registered_model_name"], unique=False)
    op.create_index("idx_registry_stage", "model_registry", ["current_stage"], unique=False)
    op.create_table(
        "predictions",
        sa.Column(
            "prediction_id",
            sa.BigInteger(),
            server_default=sa.text("nextval('predictions_prediction_id_seq')"),
            nullable=False,
            comment="A number for references; not the key, which has to hold the partition columns.",
        ),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False, comment="The pipeline."),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("prediction_date", sa.DateTime(), nullable=False, comment="The date forecast."),
        sa.Column("unique_id", sa.Text(), nullable=False, comment="The series."),
        sa.Column(
            "horizon",
            sa.Integer(),
            nullable=False,
            comment="Steps ahead: the cutoff lies so many steps before prediction_date.",
        ),
        sa.Column(
            "predicted_value",
            sa.Double(),
            nullable=False,
            comment="The median where the pipeline has levels, else the model's point forecast.",
        ),
        sa.Column(
            "actual_value", sa.Double(), nullable=True, comment="NULL where nothing was observed."
        ),
        sa.Column("lower_bound", sa.Double(), nullable=True),
        sa.Column("upper_bound", sa.Double(), nullable=True),
        sa.Column(
            "confidence_level",
            sa.Double(),
            server_default=sa.text("0.95"),
            nullable=True,
            comment="Of lower_bound to upper_bound.",
        ),
        sa.Column(
            "quantiles",
            postgresql.ARRAY(sa.Double()),
            nullable=True,
            comment="Ascending, at the probabilities of models.model_config->'quantiles'.",
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(predicted_value > '-Infinity'::float8 AND predicted_value < 'Infinity'::float8) AND (actual_value > '-Infinity'::float8 AND actual_value < 'Infinity'::float8) AND (lower_bound > '-Infinity'::float8 AND lower_bound < 'Infinity'::float8) AND (upper_bound > '-Infinity'::float8 AND upper_bound < 'Infinity'::float8)",
            name=op.f("ck_predictions_finite"),
        ),
        sa.CheckConstraint(
            "unique_id <> '' AND length(unique_id) <= 255", name=op.f("ck_predictions_unique_id")
        ),
        sa.CheckConstraint(
            "confidence_level > 0 AND confidence_level < 1", name=op.f("ck_predictions_confidence")
        ),
        sa.CheckConstraint("horizon > 0", name=op.f("ck_predictions_horizon")),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.experiment_id"],
            name=op.f("fk_predictions_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["models.model_id"],
            name=op.f("fk_predictions_model_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_predictions_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "experiment_id",
            "model_id",
            "unique_id",
            "prediction_date",
            "horizon",
            name="pk_predictions",
        ),
        comment="Forecasts; a partition a quarter, in it a leaf a pipeline.",
        postgresql_partition_by="RANGE (prediction_date)",
    )
    op.create_index(
        "idx_predictions_composite",
        "predictions",
        ["unique_id", sa.literal_column("prediction_date DESC"), "horizon"],
        unique=False,
    )
    op.execute(
        """
        CREATE FUNCTION update_updated_at_column() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            NEW.updated_at = CURRENT_TIMESTAMP;
            RETURN NEW;
        END;
        $$
        """
    )
    for table in _TOUCHED:
        op.execute(
            f"CREATE TRIGGER update_{table}_updated_at BEFORE UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()"
        )


def downgrade() -> None:
    # Leaves that killed writers left detached still take their numbers from the sequence.
    op.execute(
        """
        DO $$
        DECLARE leaf text;
        BEGIN
            FOR leaf IN
                SELECT relname FROM pg_class
                WHERE relname ~ '^predictions_[0-9]{4}_q[1-4]_e[0-9]+_[no][0-9a-f]+$'
                  AND relkind = 'r' AND NOT relispartition
                  AND relnamespace = current_schema()::regnamespace
            LOOP
                EXECUTE format('DROP TABLE %I', leaf);
            END LOOP;
        END;
        $$
        """
    )
    for table in _TABLES:
        op.drop_table(table)
    op.execute("DROP SEQUENCE predictions_prediction_id_seq")
    op.execute("DROP FUNCTION update_updated_at_column()")
