"""The views' numbers, and that the materialized ones refresh beside readers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text


def only_row(engine: Engine, query: str) -> dict[str, Any]:
    with engine.connect() as connection:
        return dict(connection.execute(text(query)).mappings().one())


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_v_latest_experiments__counts_runs_by_status(teams: Engine) -> None:
    change(
        teams,
        "UPDATE runs SET status = 'completed' WHERE experiment_id = 1",
        "INSERT INTO runs (experiment_id, run_name, run_fingerprint, status) "
        "VALUES (1, 'a', 'a', 'failed'), (1, 'b', 'b', 'running')",
        "UPDATE experiments SET deleted_at = now() WHERE experiment_id = 3",
    )

    row = only_row(teams, "SELECT * FROM v_latest_experiments WHERE experiment_name = 'shop'")
    assert (row["total_runs"], row["completed_runs"]) == (3, 1)
    assert (row["failed_runs"], row["running_runs"]) == (1, 1)
    count = only_row(teams, "SELECT count(*) AS n FROM v_latest_experiments")
    assert count["n"] == 2


def test_v_production_models__one_in_production__its_last_losses_and_accuracy(
    teams: Engine,
) -> None:
    change(
        teams,
        "UPDATE model_registry SET current_stage = 'production', approved_by = 'erin' "
        "WHERE model_id = 1",
        "INSERT INTO metrics (run_id, model_id, metric_name, metric_value, metric_step, dataset_type) "
        "VALUES (1, 1, 'train_loss', 9, 0, 'train'), (1, 1, 'train_loss', 3, 50, 'train'), "
        "(1, 1, 'mae', 0.5, 0, 'test'), (1, 1, 'mae', 0.9, 6, 'test')",
    )

    row = only_row(teams, "SELECT * FROM v_production_models")
    assert (row["experiment_name"], row["approved_by"]) == ("shop", "erin")
    assert row["training_metrics"] == {"train_loss": 3}
    assert row["test_metrics"] == {"mae": 0.5}


def test_v_forecast_lineage__forecast__leads_to_file_hashes_in_one_query(teams: Engine) -> None:
    change(
        teams,
        """UPDATE datasets SET metadata = '{"sources": [{"path": "a.csv", "sha256": "ab"}]}'""",
        """UPDATE models SET metadata = '{"sha256": "cd", "datasets": """
        """[{"dataset_id": 1, "file_hash": "ef"}]}' WHERE model_id = 1""",
        """UPDATE runs SET metadata = '{"datasets": [{"dataset_id": 1, "file_hash": "01"}]}'""",
    )

    row = only_row(
        teams,
        "SELECT * FROM v_forecast_lineage WHERE experiment_id = 1 "
        "AND prediction_date = '2025-02-01' AND unique_id = 'a'",
    )
    assert (row["experiment_name"], row["model_name"], row["model_sha256"]) == ("shop", "m", "cd")
    assert row["training_parameters"] == {"h": "1"}
    assert row["training_datasets"][0]["file_hash"] == "ef"
    assert row["prediction_datasets"][0]["sources"] == [{"path": "a.csv", "sha256": "ab"}]


def test_mv_model_performance__superseded_evaluation_and_buckets__are_left_out(
    teams: Engine,
) -> None:
    change(
        teams,
        "UPDATE models SET status = 'evaluated' WHERE model_id = 1",
        "DELETE FROM metrics",
        "INSERT INTO runs (experiment_id, run_name, run_fingerprint, deleted_at) "
        "VALUES (1, 'old', 'old', now())",
        "INSERT INTO metrics (run_id, model_id, metric_name, metric_value, metric_step, dataset_type) "
        "VALUES (1, 1, 'mae', 0.5, 0, 'test'), (1, 1, 'mae', 7, 6, 'test'), "
        "(4, 1, 'mae', 8, 0, 'test')",
    )
    reader = teams.connect()
    reader.execute(text("SELECT * FROM mv_model_performance"))
    with teams.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for view in ("mv_experiment_summary", "mv_model_performance"):
            connection.execute(text("SET lock_timeout = '2s'"))
            connection.execute(text(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {view}"))
    reader.close()

    row = only_row(teams, "SELECT model_id, test_mae, validation_mae FROM mv_model_performance")
    assert row == {"model_id": 1, "test_mae": 0.5, "validation_mae": None}
    summary = only_row(teams, "SELECT * FROM mv_experiment_summary WHERE experiment_id = 1")
    assert summary["total_runs"] == 2
