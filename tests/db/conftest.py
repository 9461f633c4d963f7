"""Two teams' experiments, for tests of who sees and changes what; a shelf for units of work."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from ts_forecast.db import partitions
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2025, 1)


@pytest.fixture
def teams(engine: Engine) -> Engine:
    """Experiments 1 (alice's), 2 (bob's) and 3 (nobody's), each with a row of everything under it.

    Carol may read experiment 1, dan write it, erin administer it; root sees all; gone is inactive and
    was given everything.
    """
    with engine.begin() as connection:
        fill(connection)
    return engine


@pytest.fixture
def shelf(engine: Engine) -> Engine:
    """An empty table ``shelf`` with a key ``n`` and a value ``v``."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shelf (n int PRIMARY KEY, v int NOT NULL DEFAULT 0)"))
    return engine


def fill(connection: Connection) -> None:
    """The rows of ``teams``."""
    for statement in (
        "INSERT INTO experiments (experiment_name, created_by) "
        "VALUES ('shop', 'alice'), ('grid', 'bob'), ('old', NULL)",
        "INSERT INTO users (username, email, is_superuser, is_active) "
        "SELECT n, n || '@example.org', n = 'root', n <> 'gone' "
        "FROM unnest(ARRAY['alice', 'bob', 'carol', 'dan', 'erin', 'root', 'gone']) AS n",
        "INSERT INTO user_experiments (user_id, experiment_id, permission_level) "
        "SELECT user_id, 1, level FROM users JOIN (VALUES ('carol', 'read'), ('dan', 'write'), "
        "('erin', 'admin'), ('gone', 'owner')) AS given (username, level) USING (username)",
        "INSERT INTO datasets (dataset_name, dataset_type, file_path) VALUES ('shop/q', 'raw', 'x')",
        "INSERT INTO dataset_features (dataset_id, feature_name, feature_type, data_type) "
        "VALUES (1, 'y', 'numeric', 'float64')",
        "INSERT INTO runs (experiment_id, run_name, run_fingerprint) "
        "SELECT n, 'r', 'f' FROM generate_series(1, 3) AS n",
        "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
        "model_file_path) SELECT n, 'm', 'MLP', 'neuralforecast', '{}', 'x' "
        "FROM generate_series(1, 3) AS n",
        "INSERT INTO model_registry (model_id, registered_model_name, model_version) "
        "SELECT n, 'm', n FROM generate_series(1, 3) AS n",
        "INSERT INTO metrics (run_id, model_id, metric_name, metric_value) "
        "SELECT n, n, 'mae', n FROM generate_series(1, 3) AS n",
        "INSERT INTO metric_summaries (run_id, model_id, metric_name, dataset_type, sample_count) "
        "SELECT n, n, 'mae', 'test', 1 FROM generate_series(1, 3) AS n",
        "INSERT INTO hyperparameters (run_id, param_key, param_value) "
        "SELECT n, 'h', '1' FROM generate_series(1, 3) AS n",
        "INSERT INTO artifacts (run_id, artifact_name, artifact_type, artifact_path, storage_path) "
        "SELECT n, 'a', 'model', 'x', 'x' FROM generate_series(1, 3) AS n",
        "INSERT INTO system_logs (log_level, log_message, run_id) "
        "SELECT 'ERROR', 'm', n FROM generate_series(1, 3) AS n",
        "INSERT INTO staging.uploads (experiment_id, file_path) "
        "SELECT n, 'x' FROM generate_series(1, 3) AS n",
        "INSERT INTO staging.rejected (upload_id, reason) "
        "SELECT n, 'x' FROM generate_series(1, 3) AS n",
        "INSERT INTO hyperparameter_search_spaces (space_name, model_type, framework, "
        "search_space_definition) VALUES ('s', 'NHITS', 'neuralforecast', '{}')",
    ):
        connection.execute(text(statement))
    partitions.ensure_quarter(connection, QUARTER)
    for experiment in (1, 2, 3):
        leaf = partitions.leaf_table(QUARTER, experiment)
        partitions.create_detached_leaf(connection, leaf)
        connection.execute(
            text(
                f"INSERT INTO {leaf} (experiment_id, run_id, model_id, prediction_date, unique_id, "
                f"horizon, predicted_value) VALUES ({experiment}, {experiment}, {experiment}, "
                "'2025-02-01', 'a', 1, 2.5)"
            )
        )
        partitions.finish_leaf(connection, leaf, QUARTER, experiment, "sha256:x rows:1 run:1")
        partitions.attach_leaf(connection, QUARTER, leaf, experiment)
