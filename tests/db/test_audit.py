"""Every change that people make is on record, with who made it, and stays there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from ts_forecast.db.roles import ROLES

AUDITED = [
    "datasets",
    "experiments",
    "hyperparameter_search_spaces",
    "model_registry",
    "models",
    "system_config",
    "user_experiments",
    "users",
]


def records(engine: Engine, table: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT * FROM audit.audit_logs WHERE table_name = :table ORDER BY audit_id"),
            {"table": table},
        )
        return [dict(row) for row in rows.mappings()]


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_log_changes__insert_update_delete__values_before_and_after(engine: Engine) -> None:
    change(engine, "INSERT INTO experiments (experiment_name) VALUES ('shop'), ('grid')")
    change(
        engine,
        "SELECT set_config('app.current_user', 'alice', true)",
        "UPDATE experiments SET experiment_description = 'x' WHERE experiment_name = 'shop'",
    )
    change(
        engine,
        "SELECT set_config('app.current_user', '', true)",
        "DELETE FROM experiments WHERE experiment_name = 'grid'",
    )

    first, second, update, delete = records(engine, "experiments")
    assert [first["new_values"]["experiment_name"], second["record_id"]] == ["shop", 2]
    assert first["old_values"] is None
    assert first["transaction_id"] == second["transaction_id"] != update["transaction_id"]
    assert (update["operation_type"], update["record_id"]) == ("UPDATE", 1)
    assert update["changed_fields"] == {"experiment_description": "x"}
    assert update["old_values"]["experiment_description"] is None
    assert (update["user_id"], update["database_user"]) == ("alice", "postgres")
    assert (delete["operation_type"], delete["old_values"]["experiment_id"]) == ("DELETE", 2)
    assert delete["user_id"] == "postgres"
    assert delete["session_id"].count(".") == 1


def test_log_changes__update_that_changes_nothing__is_not_recorded(engine: Engine) -> None:
    change(engine, "INSERT INTO experiments (experiment_name) VALUES ('shop')")
    change(engine, "UPDATE experiments SET experiment_name = experiment_name")

    assert len(records(engine, "experiments")) == 1


def test_log_changes__key_changes__neither_row_is_lost(engine: Engine) -> None:
    change(engine, "INSERT INTO users (username, email) VALUES ('a', 'a'), ('b', 'b')")
    change(engine, "UPDATE users SET user_id = user_id + 10 WHERE username = 'a'")

    changes = [row for row in records(engine, "users") if row["operation_type"] == "UPDATE"]
    assert sorted(row["record_id"] for row in changes) == [1, 11]


def test_log_changes__secret__is_hidden_and_its_change_seen(engine: Engine) -> None:
    change(
        engine,
        "INSERT INTO system_config (config_key, config_value, is_secret) VALUES ('k', 'one', true)",
        "UPDATE system_config SET config_value = 'two' WHERE config_key = 'k'",
        "UPDATE system_config SET config_value = '20' WHERE config_key = 'max_parallel_runs'",
    )

    insert, secret, plain = records(engine, "system_config")
    assert insert["new_values"]["config_value"] == "***"
    assert secret["changed_fields"] == {"config_value": "***"}
    assert secret["old_values"]["config_value"] == "***"
    assert plain["changed_fields"] == {"config_value": "20"}


def test_log_changes__statement_rolled_back__is_not_recorded(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))
        connection.rollback()

    assert records(engine, "experiments") == []


def test_log_changes__truncate__is_one_record(engine: Engine) -> None:
    change(engine, "TRUNCATE user_experiments")

    (record,) = records(engine, "user_experiments")
    assert (record["operation_type"], record["record_id"]) == ("TRUNCATE", None)


def test_log_changes__experiment_deleted__what_it_takes_along_is_recorded(teams: Engine) -> None:
    change(teams, "DELETE FROM experiments WHERE experiment_id = 1")

    for table in ("runs", "models", "artifacts", "metric_summaries", "model_registry"):
        deleted = [r for r in records(teams, table) if r["operation_type"] == "DELETE"]
        assert len(deleted) == 1, table


def test_triggers__tables_that_people_change__have_all_four(engine: Engine) -> None:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT tgrelid::regclass::text, count(*) FROM pg_trigger "
                "WHERE tgfoid = 'audit.log_changes'::regproc GROUP BY 1 ORDER BY 1"
            )
        )
        counts = {table: count for table, count in rows}

    assert counts == dict.fromkeys(AUDITED, 4) | dict.fromkeys(
        ["artifacts", "metric_summaries", "runs"], 2
    )


def test_audit_logs__anyone_but_the_owner__changes_nothing(engine: Engine) -> None:
    statements = [
        "UPDATE audit.audit_logs SET user_id = 'bob'",
        "DELETE FROM audit.audit_logs",
        "TRUNCATE audit.audit_logs",
        "INSERT INTO audit.audit_logs (table_name, operation_type) VALUES ('x', 'DELETE')",
    ]
    for role, statement in itertools.product(ROLES, statements):
        with engine.connect() as connection:
            connection.execute(text(f"SET LOCAL ROLE {role}"))
            with pytest.raises(ProgrammingError, match="permission denied"):
                connection.execute(text(statement))


def test_audit_logs__no_partition_for_the_moment__lands_in_the_default(engine: Engine) -> None:
    change(
        engine,
        "INSERT INTO audit.audit_logs (table_name, operation_type, created_at) "
        "VALUES ('x', 'DELETE', now() + interval '5 years')",
    )

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit.audit_logs_default")) == 1
