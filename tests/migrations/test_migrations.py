"""The schema: up, down, up again; equal to the tables; every object that the design names."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, inspect, text

from ts_forecast.db import migrate, partitions
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.errors import DatabaseError
from ts_forecast.quarters import Quarter
from ts_forecast.tables import Base

INDEXES = """
idx_experiments_name idx_experiments_created_at idx_experiments_status idx_experiments_tags
idx_runs_experiment_id idx_runs_fingerprint idx_runs_status idx_runs_start_time idx_runs_parent_run
idx_runs_tags idx_runs_composite idx_runs_unique_fingerprint
idx_models_run_id idx_models_name idx_models_type idx_models_framework idx_models_status
idx_models_created_at idx_models_config idx_models_tags
idx_registry_model_id idx_registry_name idx_registry_stage idx_registry_deployed_at
idx_datasets_name idx_datasets_type idx_datasets_file_hash idx_datasets_created_at idx_datasets_parent
idx_features_dataset_id idx_features_name idx_features_type idx_features_role idx_features_target
idx_metrics_run_id idx_metrics_model_id idx_metrics_name idx_metrics_timestamp idx_metrics_composite
idx_summary_run_id idx_summary_model_id idx_summary_metric
idx_params_run_id idx_params_key idx_params_category
idx_artifacts_run_id idx_artifacts_type idx_artifacts_name idx_artifacts_hash idx_artifacts_created_at
idx_artifacts_tags idx_predictions_composite
""".split()
CONSTRAINTS = """
ck_experiments_status ck_experiments_lifecycle ck_experiments_type
ck_runs_status ck_runs_lifecycle ck_runs_source_type ck_runs_duration
ck_models_status ck_models_framework ck_models_training_samples ck_models_size
ck_registry_stage ck_registry_version uq_registry_name_version
ck_datasets_type ck_datasets_format ck_datasets_rows ck_datasets_columns
ck_features_type ck_features_role ck_features_exog_type ck_features_missing_pct uq_dataset_feature
ck_metrics_dataset_type ck_metrics_step uq_summary_run_metric
ck_params_type uq_run_param_key ck_artifacts_type ck_artifacts_storage ck_artifacts_size
ck_predictions_horizon ck_predictions_confidence ck_predictions_unique_id ck_predictions_finite
""".split()

# What the design's tables hold, and the errata's additions.
COLUMNS = {
    "experiments": "experiment_id experiment_name experiment_description experiment_type status "
    "lifecycle_stage created_by created_at updated_at deleted_at tags metadata",
    "runs": "run_id run_uuid experiment_id parent_run_id run_name run_description run_fingerprint "
    "status lifecycle_stage start_time end_time execution_duration_seconds source_type source_name "
    "git_commit_hash git_branch git_repo_url user_id tags metadata created_at updated_at deleted_at "
    "quarter_start",
    "models": "model_id model_uuid run_id model_name model_type model_version framework "
    "framework_version model_config hyperparameters training_dataset_id training_samples "
    "training_duration_seconds model_size_bytes model_file_path checkpoint_path status tags "
    "metadata created_at updated_at quarter_start",
    "model_registry": "registry_id model_id registered_model_name model_version current_stage "
    "previous_stage stage_transition_at approved_by approved_at approval_notes deployed_at "
    "deployment_target production_metrics description tags metadata created_at updated_at",
    "datasets": "dataset_id dataset_uuid dataset_name dataset_description dataset_type file_path "
    "file_format file_size_bytes file_hash num_rows num_columns num_time_series date_column "
    "target_column frequency start_date end_date schema_definition column_types "
    "missing_values_count duplicate_rows_count version parent_dataset_id tags metadata created_at "
    "updated_at quarter_start",
    "dataset_features": "feature_id dataset_id feature_name feature_type data_type min_value "
    "max_value mean_value median_value std_value num_unique_values unique_values missing_count "
    "missing_percentage feature_role is_target is_exogenous exogenous_type importance_score "
    "correlation_with_target tags created_at updated_at",
    "metrics": "metric_id run_id model_id metric_name metric_value metric_step dataset_type "
    "evaluation_context timestamp metadata",
    "metric_summaries": "summary_id run_id model_id metric_name dataset_type min_value max_value "
    "mean_value median_value std_value q1_value q3_value sample_count created_at updated_at "
    "quarter_start horizon_bucket",
    "hyperparameters": "hyperparameter_id run_id param_key param_value param_type "
    "is_hyperparameter param_category created_at",
    "artifacts": "artifact_id artifact_uuid run_id artifact_name artifact_type artifact_path "
    "file_size_bytes file_format mime_type file_hash storage_type storage_path description tags "
    "metadata is_public access_count last_accessed_at created_at updated_at",
    "predictions": "prediction_id experiment_id run_id model_id prediction_date unique_id horizon "
    "predicted_value actual_value lower_bound upper_bound confidence_level quantiles metadata "
    "created_at",
}
# Of a kind that a name alone does not show: unique, partial, GIN, descending, two columns.
DEFINITIONS = {
    "idx_runs_unique_fingerprint": "CREATE UNIQUE INDEX idx_runs_unique_fingerprint ON public.runs "
    "USING btree (experiment_id, run_fingerprint) WHERE (deleted_at IS NULL)",
    "idx_experiments_tags": "ON public.experiments USING gin (tags)",
    "idx_models_config": "ON public.models USING gin (model_config)",
    "idx_runs_parent_run": "(parent_run_id) WHERE (parent_run_id IS NOT NULL)",
    "idx_runs_composite": "(experiment_id, status, start_time DESC)",
    "idx_metrics_composite": "(run_id, metric_name, dataset_type, metric_step)",
    "idx_predictions_composite": "(unique_id, prediction_date DESC, horizon)",
    "pk_predictions": "(experiment_id, model_id, unique_id, prediction_date, horizon)",
    "uq_summary_run_metric": "(run_id, model_id, metric_name, dataset_type, horizon_bucket) "
    "NULLS NOT DISTINCT",
}
TOUCHED = sorted(
    table.name for table in Base.metadata.tables.values() if "updated_at" in table.columns
)


def test_upgrade__down_and_up_again__equals_the_tables(empty: Engine) -> None:
    migrate.upgrade(empty)
    migrate.downgrade(empty, "base")
    left = inspect(empty).get_table_names()
    migrate.upgrade(empty)

    assert left == ["alembic_version"]
    assert migrate.current(empty) == migrate.head()
    config = migrate._config()
    config.attributes["connection"] = empty
    command.check(config)


def test_schema__every_name_of_the_design__is_there(empty: Engine) -> None:
    migrate.upgrade(empty)

    with empty.connect() as connection:
        found = connection.execute(text("SELECT indexname, indexdef FROM pg_indexes"))
        definitions = {name: definition for name, definition in found}
        columns: dict[str, set[str]] = {}
        for table, column in connection.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.columns "
                "WHERE table_schema = 'public'"
            )
        ):
            columns.setdefault(table, set()).add(column)
        constraints = set(connection.scalars(text("SELECT conname FROM pg_constraint")))
        comments = set(
            connection.scalars(
                text(
                    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') "
                    "AND obj_description(oid, 'pg_class') IS NOT NULL"
                )
            )
        )
    lacking = {t: set(names.split()) - columns[t] for t, names in COLUMNS.items()}
    assert {table: names for table, names in lacking.items() if names} == {}
    assert set(INDEXES) <= definitions.keys()
    for index, definition in DEFINITIONS.items():
        assert definition in definitions[index]
    assert set(CONSTRAINTS) <= constraints
    assert set(COLUMNS) <= comments
    assert set(COLUMNS) <= set(Base.metadata.tables)


def test_downgrade__with_slices_and_orphans__leaves_nothing(empty: Engine) -> None:
    migrate.upgrade(empty)
    quarter = Quarter(2025, 1)
    leaf = partitions.leaf_table(quarter, 1)
    with empty.begin() as connection:
        _insert_owners(connection)
        partitions.ensure_quarter(connection, quarter)
        for name in (f"{leaf}_n0123abcd", f"{leaf}_o0123abcd", leaf):
            partitions.create_detached_leaf(connection, name)
        connection.execute(
            text(
                f"INSERT INTO {leaf} (experiment_id, run_id, model_id, prediction_date, unique_id, "
                "horizon, predicted_value) VALUES (1, 1, 1, '2025-02-01', 'a', 1, 2.5)"
            )
        )
        partitions.finish_leaf(connection, leaf, quarter, 1, "sha256:x rows:1 run:1")
        partitions.attach_leaf(connection, quarter, leaf, 1)
        assert connection.scalar(text("SELECT predicted_value FROM predictions")) == 2.5

    migrate.downgrade(empty, "base")

    assert inspect(empty).get_table_names() == ["alembic_version"]
    with empty.connect() as connection:
        left = connection.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "AND relname NOT LIKE 'alembic%' UNION ALL "
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            )
        )
        assert list(left) == []


def test_autogenerate__with_partitions__proposes_nothing(empty: Engine) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        partitions.ensure_quarter(connection, Quarter(2025, 1))
    config = migrate._config()
    config.attributes["connection"] = empty

    command.check(config)


def test_updated_at__on_update__moves(engine: Engine) -> None:
    with engine.begin() as connection:
        _insert_owners(connection)
        connection.execute(text("UPDATE experiments SET updated_at = '2020-01-01'"))
        moved = connection.scalar(text("SELECT updated_at = now() FROM experiments"))
        triggers = connection.scalars(
            text("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE '%updated_at'")
        )
        assert sorted(triggers) == TOUCHED

    # Not even a value that was given stands.
    assert moved


def test_experiments__deleted__takes_all_that_hangs_on_it(engine: Engine) -> None:
    with engine.begin() as connection:
        _insert_owners(connection)
        connection.execute(
            text(
                "INSERT INTO metrics (run_id, model_id, metric_name, metric_value) VALUES (1,1,'mae',1)"
            )
        )
        connection.execute(text("DELETE FROM experiments"))
        left = connection.scalar(
            text("SELECT (SELECT count(*) FROM models) + (SELECT count(*) FROM metrics)")
        )

    assert left == 0


def _insert_owners(connection: Connection) -> None:
    for statement in (
        "INSERT INTO experiments (experiment_name) VALUES ('shop')",
        "INSERT INTO runs (experiment_id, run_name, run_fingerprint) VALUES (1, 'r', 'f')",
        "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
        "model_file_path) VALUES (1, 'm', 'MLP', 'neuralforecast', '{}', 'x')",
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("predicted_value", "'NaN'"),
        ("upper_bound", "'Infinity'"),
        ("horizon", "0"),
        ("unique_id", "''"),
    ],
)
def test_predictions__value_that_is_none__is_refused(
    engine: Engine, column: str, value: str
) -> None:
    with transaction(engine) as session:
        partitions.ensure_quarter(session.connection(), Quarter(2025, 1))
        leaf = partitions.leaf_table(Quarter(2025, 1), 1)
        partitions.create_detached_leaf(session.connection(), leaf)
    row = {
        "experiment_id": "1",
        "run_id": "1",
        "model_id": "1",
        "prediction_date": "'2025-01-01'",
        "unique_id": "'a'",
        "horizon": "1",
        "predicted_value": "1",
        "upper_bound": "2",
    } | {column: value}
    statement = f"INSERT INTO {leaf} ({', '.join(row)}) VALUES ({', '.join(row.values())})"

    with pytest.raises(Exception, match="ck_predictions"), transaction(engine) as session:
        session.execute(text(statement))


def test_check_revision__no_tables__names_the_command(empty_database_url: str) -> None:
    bare = create_engine(empty_database_url)
    try:
        with pytest.raises(DatabaseError, match=r"revision none.*ts-forecast db upgrade"):
            migrate.check_revision(bare)
    finally:
        bare.dispose()
