"""Search spaces, the deployment's settings with their defaults, and why a run failed.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TOUCHED = ("hyperparameter_search_spaces", "system_config")
_FIELDS = ("config_key", "config_value", "config_type", "category", "description")
_SYSTEM_CONFIG = sa.table("system_config", *(sa.column(name, sa.Text()) for name in _FIELDS))
_DEFAULTS = [
    ("max_parallel_runs", "10", "integer", "execution", "Runs side by side, at most."),
    ("default_retention_days", "90", "integer", "storage", "How long logs are kept, in days."),
    ("enable_mlflow", "true", "boolean", "tracking", "Track runs in MLflow too."),
    ("enable_wandb", "false", "boolean", "tracking", "Track runs in Weights & Biases too."),
    ("log_level", "INFO", "string", "logging", "The lowest level that is logged."),
]
_COMMENTS = {
    "experiments.experiment_id": "The experiment''s number.",
    "models.hyperparameters": "As the model was built; of a search, the best trial''s.",
    "datasets.schema_definition": "Of a quarter: the roles of its exogenous columns.",
}


def upgrade() -> None:
    op.create_table(
        "hyperparameter_search_spaces",
        sa.Column("search_space_id", sa.BigInteger(), nullable=False),
        sa.Column("space_name", sa.String(length=255), nullable=False),
        sa.Column("space_description", sa.Text(), nullable=True),
        sa.Column(
            "model_type",
            sa.String(length=100),
            nullable=False,
            comment="The model it is for: NHITS.",
        ),
        sa.Column("framework", sa.String(length=50), nullable=False),
        sa.Column(
            "search_space_definition",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Per parameter: a constant, values, or low and high; see ts_forecast.search_space.",
        ),
        sa.Column("created_by", sa.String(length=255), nullable=True),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=True,
            comment="false: pipeline files may not name it.",
        ),
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
        sa.PrimaryKeyConstraint("search_space_id", name=op.f("pk_hyperparameter_search_spaces")),
        sa.UniqueConstraint("space_name", name=op.f("uq_hyperparameter_search_spaces_space_name")),
        comment="Search spaces of hyperparameters, by name.",
    )
    op.create_index(
        "idx_search_space_active",
        "hyperparameter_search_spaces",
        ["is_active"],
        unique=False,
        postgresql_where=sa.text("is_active = true"),
    )
    op.create_index(
        "idx_search_space_model", "hyperparameter_search_spaces", ["model_type"], unique=False
    )
    op.create_table(
        "system_config",
        sa.Column("config_id", sa.BigInteger(), nullable=False),
        sa.Column("config_key", sa.String(length=255), nullable=False),
        sa.Column("config_value", sa.Text(), nullable=False, comment="Encrypted where is_secret."),
        sa.Column("config_type", sa.String(length=50), server_default="string", nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("category", sa.String(length=100), nullable=True),
        sa.Column(
            "validation_regex", sa.Text(), nullable=True, comment="What the whole value must match."
        ),
        sa.Column(
            "is_secret",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=True,
            comment="true: config_value is a Fernet token.",
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
            "config_type IN ('string', 'integer', 'float', 'boolean', 'json')",
            name=op.f("ck_config_type"),
        ),
        sa.PrimaryKeyConstraint("config_id", name=op.f("pk_system_config")),
        sa.UniqueConstraint("config_key", name=op.f("uq_system_config_config_key")),
        comment="Settings of the whole deployment that live in the database.",
    )
    op.create_index("idx_config_category", "system_config", ["category"], unique=False)
    op.create_index("idx_config_key", "system_config", ["config_key"], unique=False)
    op.bulk_insert(_SYSTEM_CONFIG, [dict(zip(_FIELDS, row, strict=True)) for row in _DEFAULTS])
    op.add_column(
        "runs",
        sa.Column(
            "error_message",
            sa.Text(),
            nullable=True,
            comment="Why it failed or was killed, in one line.",
        ),
    )
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")
    for table in _TOUCHED:
        op.execute(
            f"CREATE TRIGGER update_{table}_updated_at BEFORE UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()"
        )


def downgrade() -> None:
    for column in _COMMENTS:
        op.execute(f"COMMENT ON COLUMN {column} IS NULL")
    op.drop_column("runs", "error_message")
    op.drop_table("system_config")
    op.drop_table("hyperparameter_search_spaces")
