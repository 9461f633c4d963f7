"""Views: experiments and models at a glance, what is in production, and where a forecast comes from.

Views run with the rights of whoever reads them (``security_invoker``), so that row-level security holds.
Materialized views cannot have it: readers who are bound by it are not granted them.

The design's mv_model_performance takes the largest of all values of a metric; ours takes the one over all
horizons of the evaluation that stands, for a model is evaluated again as its quarter fills.

It is VERY important that a migration does not hold a lock for long and does not break the version of
the code before it: lock_timeout is set in env.py; build indexes CONCURRENTLY on filled tables.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_VIEWS = {
    "v_latest_experiments": """
        SELECT e.experiment_id, e.experiment_name, e.experiment_description, e.status,
            count(r.run_id) AS total_runs,
            count(r.run_id) FILTER (WHERE r.status = 'completed') AS completed_runs,
            count(r.run_id) FILTER (WHERE r.status = 'failed') AS failed_runs,
            count(r.run_id) FILTER (WHERE r.status = 'running') AS running_runs,
            max(r.start_time) AS last_run_time, e.created_at, e.updated_at
        FROM experiments e LEFT JOIN runs r ON r.experiment_id = e.experiment_id
        WHERE e.deleted_at IS NULL
        GROUP BY e.experiment_id
        ORDER BY e.updated_at DESC
    """,
    "v_production_models": """
        SELECT m.model_id, m.model_name, m.model_type, g.registered_model_name,
            g.model_version AS registered_version, m.model_version,
            m.model_file_path AS model_path, m.quarter_start,
            (SELECT jsonb_object_agg(c.metric_name, c.metric_value) FROM (
                SELECT DISTINCT ON (metric_name) metric_name, metric_value FROM metrics
                WHERE run_id = m.run_id AND model_id = m.model_id AND dataset_type = 'train'
                ORDER BY metric_name, metric_step DESC) c) AS training_metrics,
            (SELECT jsonb_object_agg(c.metric_name, c.metric_value) FROM (
                SELECT DISTINCT ON (metric_name) metric_name, metric_value FROM metrics
                WHERE run_id = m.run_id AND model_id = m.model_id AND dataset_type = 'validation'
                ORDER BY metric_name, metric_step DESC) c) AS validation_metrics,
            (SELECT jsonb_object_agg(t.metric_name, t.metric_value)
                FROM metrics t JOIN runs s ON s.run_id = t.run_id AND s.deleted_at IS NULL
                WHERE t.model_id = m.model_id AND t.dataset_type = 'test'
                  AND t.metric_step = 0) AS test_metrics,
            r.run_name, e.experiment_name, g.approved_by, g.approved_at, g.deployed_at,
            m.created_at, m.updated_at
        FROM model_registry g
        JOIN models m ON m.model_id = g.model_id
        JOIN runs r ON r.run_id = m.run_id
        JOIN experiments e ON e.experiment_id = r.experiment_id
        WHERE g.current_stage = 'production'
        ORDER BY m.created_at DESC
    """,
    "v_forecast_lineage": """
        SELECT p.prediction_id, e.experiment_id, e.experiment_name, p.unique_id,
            p.prediction_date, p.horizon, p.predicted_value, p.actual_value,
            m.model_id, m.model_name, m.model_type, m.framework, m.framework_version,
            m.quarter_start, m.model_file_path, m.metadata ->> 'sha256' AS model_sha256,
            m.model_config, m.hyperparameters,
            f.run_id AS training_run_id, f.run_fingerprint AS training_fingerprint,
            f.git_commit_hash AS training_commit, f.start_time AS trained_at,
            (SELECT jsonb_object_agg(h.param_key, h.param_value)
                FROM hyperparameters h WHERE h.run_id = f.run_id) AS training_parameters,
            (SELECT jsonb_agg(jsonb_build_object('dataset_id', d.dataset_id,
                    'dataset_name', d.dataset_name, 'version', d.version,
                    'file_hash', used ->> 'file_hash', 'file_path', d.file_path,
                    'sources', d.metadata -> 'sources') ORDER BY d.quarter_start)
                FROM jsonb_array_elements(m.metadata -> 'datasets') AS used
                JOIN datasets d ON d.dataset_id = (used ->> 'dataset_id')::bigint
            ) AS training_datasets,
            q.run_id AS prediction_run_id, q.run_fingerprint AS prediction_fingerprint,
            q.git_commit_hash AS prediction_commit, q.start_time AS predicted_at,
            (SELECT jsonb_agg(jsonb_build_object('dataset_id', d.dataset_id,
                    'dataset_name', d.dataset_name, 'version', d.version,
                    'file_hash', used ->> 'file_hash', 'file_path', d.file_path,
                    'sources', d.metadata -> 'sources') ORDER BY d.quarter_start)
                FROM jsonb_array_elements(q.metadata -> 'datasets') AS used
                JOIN datasets d ON d.dataset_id = (used ->> 'dataset_id')::bigint
            ) AS prediction_datasets
        FROM predictions p
        JOIN experiments e ON e.experiment_id = p.experiment_id
        JOIN models m ON m.model_id = p.model_id
        JOIN runs f ON f.run_id = m.run_id
        JOIN runs q ON q.run_id = p.run_id
    """,
}
_COMMENTS = {
    "v_latest_experiments": "Experiments, the last changed first, with counts of their runs.",
    "v_production_models": "Models in production, with their metrics.",
    "v_forecast_lineage": "From any forecast to its model, runs, parameters, datasets and files; "
    "name experiment_id and prediction_date, or all partitions are read.",
}
_ACCURACIES = ",\n".join(
    f"max(t.metric_value) FILTER (WHERE t.metric_name = '{metric}' "
    f"AND t.dataset_type = '{kind}') AS {kind}_{metric}"
    for kind in ("validation", "test")
    for metric in ("mae", "rmse", "smape")
)
_MATERIALIZED = {
    "mv_experiment_summary": (
        """
        SELECT e.experiment_id, e.experiment_name, e.status, count(r.run_id) AS total_runs,
            count(r.run_id) FILTER (WHERE r.status = 'completed') AS completed_runs,
            count(r.run_id) FILTER (WHERE r.status = 'failed') AS failed_runs,
            avg(r.execution_duration_seconds) AS avg_duration,
            max(r.end_time) AS last_run_time, e.created_at
        FROM experiments e LEFT JOIN runs r ON r.experiment_id = e.experiment_id
        WHERE e.deleted_at IS NULL
        GROUP BY e.experiment_id
        """,
        {
            "UNIQUE INDEX idx_mv_exp_summary_id": "experiment_id",
            "INDEX idx_mv_exp_summary_name": "experiment_name",
        },
        "Experiments with counts of their runs, as of the last refresh.",
    ),
    "mv_model_performance": (
        f"""
        SELECT m.model_id, m.model_name, m.model_type, m.framework, r.run_id, r.experiment_id,
            m.quarter_start, {_ACCURACIES},
            m.training_duration_seconds, m.model_size_bytes, m.created_at
        FROM models m JOIN runs r ON r.run_id = m.run_id
        LEFT JOIN (metrics t JOIN runs s ON s.run_id = t.run_id AND s.deleted_at IS NULL)
            ON t.model_id = m.model_id AND (t.metric_step = 0 OR t.dataset_type <> 'test')
        WHERE m.status = 'evaluated'
        GROUP BY m.model_id, r.run_id
        """,
        {
            "UNIQUE INDEX idx_mv_model_perf_id": "model_id",
            "INDEX idx_mv_model_perf_type": "model_type",
        },
        "Accuracies of evaluated models, as of the last refresh.",
    ),
}


def upgrade() -> None:
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} WITH (security_invoker = true) AS {query}")
        op.execute(f"COMMENT ON VIEW {name} IS '{_COMMENTS[name]}'")
    for name, (query, indexes, comment) in _MATERIALIZED.items():
        op.execute(f"CREATE MATERIALIZED VIEW {name} AS {query}")
        for index, columns in indexes.items():
            # Nobody reads a view that this transaction makes.
            op.execute(
                "-- squawk-ignore require-concurrent-index-creation\n"
                f"CREATE {index} ON {name} ({columns})"
            )
        op.execute(f"COMMENT ON MATERIALIZED VIEW {name} IS '{comment}'")


def downgrade() -> None:
    for name in _MATERIALIZED:
        op.execute(f"DROP MATERIALIZED VIEW {name}")
    for name in _VIEWS:
        op.execute(f"DROP VIEW {name}")
