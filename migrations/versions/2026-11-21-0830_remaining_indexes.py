"""The design's remaining indexes.

Some stand twice under two names in the design (``idx_runs_composite`` and ``idx_runs_exp_status_start``,
``idx_models_config`` and ``…_gin``, ``idx_experiments_tags`` and ``…_gin``): it asks for both names, and
the tables are small. Ours: ``idx_models_training_dataset_id``, or deleting a dataset reads all models.

Built CONCURRENTLY, outside of a transaction; whatever an interrupted attempt left is dropped first.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_INDEXES = {
    "idx_experiments_active": "experiments (experiment_name) "
    "WHERE status = 'active' AND deleted_at IS NULL",
    "idx_experiments_status_created": "experiments (status, created_at DESC) WHERE status = 'active'",
    "idx_experiments_tags_gin": "experiments USING gin (tags)",
    "idx_experiments_tags_jsonb_path": "experiments USING gin (tags jsonb_path_ops)",
    "idx_runs_exp_status_start": "runs (experiment_id, status, start_time DESC)",
    "idx_runs_metadata_gin": "runs USING gin (metadata)",
    "idx_runs_running": "runs (start_time DESC) WHERE status = 'running'",
    "idx_models_config_gin": "models USING gin (model_config)",
    "idx_models_type_created": "models (model_type, created_at DESC)",
    "idx_models_training_dataset_id": "models (training_dataset_id)",
    "idx_metrics_run_name_step": "metrics (run_id, metric_name, metric_step)",
    "idx_registry_production": "model_registry (registered_model_name, model_version) "
    "WHERE current_stage = 'production'",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # Waiting for old snapshots keeps nobody else waiting.
        op.execute("SET lock_timeout = 0")
        for name, on in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {on}")
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        for name in _INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("SET lock_timeout = '5s'")
