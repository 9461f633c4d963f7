"""Who sees and changes what: each role, table and verb, allowed and refused; then person by person."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from tests.db.conftest import QUARTER
from ts_forecast.db import partitions
from ts_forecast.db.engine import create_engine
from ts_forecast.db.roles import ROLES, ensure_roles
from ts_forecast.tables import Base

# A row that the verbs can be tried with: of experiment 1, which alice made.
COLUMN = {
    "experiments": "experiment_description",
    "runs": "run_description",
    "models": "checkpoint_path",
    "model_registry": "description",
    "datasets": "dataset_description",
    "dataset_features": "data_type",
    "metrics": "evaluation_context",
    "metric_summaries": "horizon_bucket",
    "hyperparameters": "param_value",
    "hyperparameter_search_spaces": "space_description",
    "artifacts": "description",
    "predictions": "metadata",
    "system_logs": "log_message",
    "users": "full_name",
    "user_experiments": "permission_level",
    "system_config": "description",
    "tags": "tag_description",
    "audit.audit_logs": "user_ip",
    "staging.uploads": "file_path",
    "staging.rejected": "reason",
    "archive.partitions": "bounds",
}
INSERT = {
    "experiments": "(experiment_name, created_by) VALUES ('new', 'alice')",
    "runs": "(experiment_id, run_name, run_fingerprint) VALUES (1, 'n', 'n')",
    "models": "(run_id, model_name, model_type, framework, model_config, model_file_path) "
    "VALUES (1, 'n', 'MLP', 'neuralforecast', '{}', 'x')",
    "model_registry": "(model_id, registered_model_name, model_version) VALUES (1, 'n', 9)",
    "datasets": "(dataset_name, dataset_type, file_path) VALUES ('n', 'raw', 'x')",
    "dataset_features": "(dataset_id, feature_name, feature_type, data_type) "
    "VALUES (1, 'n', 'numeric', 'float64')",
    "metrics": "(run_id, metric_name, metric_value) VALUES (1, 'n', 1)",
    "metric_summaries": "(run_id, metric_name, dataset_type, sample_count) VALUES (1, 'n', 'test', 1)",
    "hyperparameters": "(run_id, param_key, param_value) VALUES (1, 'n', 'n')",
    "hyperparameter_search_spaces": "(space_name, model_type, framework, search_space_definition) "
    "VALUES ('n', 'm', 'f', '{}')",
    "artifacts": "(run_id, artifact_name, artifact_type, artifact_path, storage_path) "
    "VALUES (1, 'n', 'model', 'x', 'x')",
    "predictions": "(experiment_id, run_id, model_id, prediction_date, unique_id, horizon, "
    "predicted_value) VALUES (1, 1, 1, '2025-02-02', 'n', 1, 1)",
    "system_logs": "(log_level, log_message, run_id) VALUES ('ERROR', 'n', 1)",
    "users": "(username, email) VALUES ('n', 'n')",
    "user_experiments": "(user_id, experiment_id) SELECT 2, 1",
    "system_config": "(config_key, config_value) VALUES ('n', 'n')",
    "tags": "(tag_name) VALUES ('n')",
    "audit.audit_logs": "(table_name, operation_type) VALUES ('x', 'DELETE')",
    "staging.uploads": "(experiment_id, file_path) VALUES (1, 'n')",
    "staging.rejected": "(upload_id, reason) VALUES (1, 'n')",
    "archive.partitions": "(table_name, parent_table, bounds) VALUES ('n', 'p', 'b')",
}
PUBLIC = [table for table in COLUMN if "." not in table]
# role -> table -> the verbs that are granted; whose rows, is the second half of this module.
GRANTED: dict[str, dict[str, str]] = {
    "readonly_user": dict.fromkeys(PUBLIC, "S"),
    "data_scientist": dict.fromkeys(PUBLIC, "SIU")
    | dict.fromkeys(["users", "system_config", "tags", "system_logs"], "S")
    | dict.fromkeys(["staging.uploads", "staging.rejected"], "SIU"),
    "admin_user": dict.fromkeys(COLUMN, "SIUD") | {"audit.audit_logs": "S"},
    "loader": dict.fromkeys(PUBLIC, "SIUD")
    | dict.fromkeys(["staging.uploads", "staging.rejected"], "SIUD"),
}


@contextmanager
def acting(engine: Engine, role: str, user: str) -> Iterator[Connection]:
    """A service that acts for somebody, in a transaction that is rolled back."""
    with engine.connect() as connection:
        connection.execute(text(f"SET ROLE {role}"))
        connection.execute(
            text("SELECT set_config('app.current_user', :user, true)"), {"user": user}
        )
        yield connection
        connection.rollback()
        connection.execute(text("RESET ROLE"))


def statement(table: str, verb: str) -> str:
    return {
        "S": f"SELECT * FROM {table}",
        "I": f"INSERT INTO {table} {INSERT[table]}",
        "U": f"UPDATE {table} SET {COLUMN[table]} = {COLUMN[table]}",
        "D": f"DELETE FROM {table}",
    }[verb]


def test_matrix__every_role_table_and_verb__as_granted_and_no_more(teams: Engine) -> None:
    assert {*COLUMN} == {*INSERT} == {*Base.metadata.tables}
    wrong = []
    for role, table, verb in itertools.product(ROLES, COLUMN, "SIUD"):
        with acting(teams, role, "alice") as connection:
            try:
                connection.execute(text(statement(table, verb)))
                outcome = "allowed"
            except ProgrammingError as error:
                outcome = "refused" if "permission denied" in str(error.orig) else str(error.orig)
        expected = "allowed" if verb in GRANTED[role].get(table, "") else "refused"
        if outcome != expected:
            wrong.append((role, table, verb, outcome))

    assert wrong == []


UNDER = [
    "runs",
    "models",
    "model_registry",
    "metrics",
    "metric_summaries",
    "hyperparameters",
    "artifacts",
    "predictions",
    "system_logs",
    "staging.uploads",
    "staging.rejected",
]


@pytest.mark.parametrize(
    ("user", "seen", "updated"),
    [
        ("alice", 1, 1),
        ("carol", 1, 0),
        ("dan", 1, 1),
        ("erin", 1, 1),
        ("root", 3, 3),
        ("gone", 0, 0),
        ("stranger", 0, 0),
    ],
)
def test_policies__person__sees_and_updates_what_they_were_given(
    teams: Engine, user: str, seen: int, updated: int
) -> None:
    with acting(teams, "data_scientist", user) as connection:
        for table in ["experiments", *UNDER]:
            if not table.startswith("staging"):
                found = connection.scalar(text(f"SELECT count(*) FROM {table}"))
                assert found == seen, table
            if "U" in GRANTED["data_scientist"][table]:
                result = connection.execute(text(statement(table, "U")))
                assert result.rowcount == updated, table


@pytest.mark.parametrize(
    ("user", "deleted"), [("alice", 1), ("carol", 0), ("dan", 0), ("erin", 1), ("root", 3)]
)
def test_policies__deleting__takes_the_level_admin(teams: Engine, user: str, deleted: int) -> None:
    with teams.begin() as connection:
        connection.execute(text("GRANT DELETE ON ALL TABLES IN SCHEMA public TO data_scientist"))
    with acting(teams, "data_scientist", user) as connection:
        for table in [*(t for t in reversed(UNDER) if "." not in t), "experiments"]:
            assert connection.execute(text(f"DELETE FROM {table}")).rowcount == deleted, table


def test_policies__rows_under_what_one_may_only_read__are_refused(teams: Engine) -> None:
    for table in (name for name in UNDER if "I" in GRANTED["data_scientist"][name]):
        with (
            acting(teams, "data_scientist", "carol") as connection,
            pytest.raises(DBAPIError, match="row-level security"),
        ):
            connection.execute(text(statement(table, "I")))


def test_policies__new_experiment__is_its_makers_and_returned_to_them(teams: Engine) -> None:
    insert = "INSERT INTO experiments (experiment_name, created_by) VALUES ('n', :by) RETURNING 1"
    with acting(teams, "data_scientist", "stranger") as connection:
        assert connection.scalar(text(insert), {"by": "stranger"}) == 1
        assert connection.scalar(text("SELECT count(*) FROM experiments")) == 1
        with pytest.raises(DBAPIError, match="row-level security"):
            connection.execute(text(insert), {"by": "alice"})


def test_policies__writer__cannot_make_an_experiment_theirs(teams: Engine) -> None:
    with (
        acting(teams, "data_scientist", "dan") as connection,
        pytest.raises(ProgrammingError, match="permission denied"),
    ):
        connection.execute(text("UPDATE experiments SET created_by = 'dan'"))


@pytest.mark.parametrize(("user", "may"), [("dan", False), ("erin", True)])
def test_policies__sharing__takes_the_level_admin(teams: Engine, user: str, may: bool) -> None:
    share = text("INSERT INTO user_experiments (user_id, experiment_id) VALUES (2, 1)")
    with acting(teams, "data_scientist", user) as connection:
        if may:
            connection.execute(share)
        else:
            with pytest.raises(DBAPIError, match="row-level security"):
                connection.execute(share)


def test_grants__what_policies_cannot_bind__is_nobodys(teams: Engine) -> None:
    relations = [
        partitions.quarter_table(QUARTER),
        partitions.leaf_table(QUARTER, 2),
        "system_logs_default",
        "mv_experiment_summary",
        "mv_model_performance",
        "alembic_version",
    ]
    for role, relation in itertools.product(["readonly_user", "data_scientist"], relations):
        with (
            acting(teams, role, "alice") as connection,
            pytest.raises(ProgrammingError, match="permission denied"),
        ):
            connection.execute(text(f"SELECT * FROM {relation}"))


def test_views__read_with_the_readers_rights(teams: Engine) -> None:
    with acting(teams, "readonly_user", "carol") as connection:
        latest = connection.scalars(text("SELECT experiment_name FROM v_latest_experiments")).all()
        lineage = connection.scalars(text("SELECT experiment_id FROM v_forecast_lineage")).all()

    assert (latest, lineage) == (["shop"], [1])


def test_app_username__login_of_a_person__cannot_pass_for_another(teams: Engine) -> None:
    with teams.begin() as connection:
        for name in ("bob", "service"):
            connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
            connection.execute(text(f"CREATE ROLE {name} LOGIN"))
        connection.execute(text("GRANT data_scientist TO bob, service"))
        connection.execute(text("GRANT loader TO service"))
    seen = {}
    for name in ("bob", "service"):
        url = teams.url.set(username=name).render_as_string(hide_password=False)
        login = create_engine(url)
        with login.connect() as connection:
            connection.execute(text("SET ROLE data_scientist"))
            connection.execute(text("SELECT set_config('app.current_user', 'alice', true)"))
            seen[name] = connection.scalars(text("SELECT experiment_name FROM experiments")).all()
        login.dispose()

    assert seen == {"bob": ["grid"], "service": ["shop"]}


def test_loader__copies_into_bound_tables_and_passes_over_policies(teams: Engine) -> None:
    with acting(teams, "loader", "stranger") as connection:
        assert connection.scalar(text("SELECT count(*) FROM runs")) == 3
        cursor = connection.connection.cursor()
        with cursor.copy("COPY metrics (run_id, metric_name, metric_value) FROM STDIN") as copy:
            copy.write_row((2, "mae", 1.5))
        assert connection.scalar(text("SELECT count(*) FROM metrics")) == 4


def test_ensure_roles__again__makes_none_and_grants_new_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE later (x int)"))
        states = ensure_roles(connection)
        granted = connection.scalar(
            text("SELECT has_table_privilege('readonly_user', 'later', 'SELECT')")
        )

    assert [(state.name, state.exists, state.made) for state in states] == [
        (name, True, False) for name in ROLES
    ]
    assert granted


def test_ensure_roles__login_that_may_not__says_what_the_administrator_must_run(
    debian_server: Engine,
) -> None:
    with debian_server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS plain WITH (FORCE)"))
        connection.execute(text("DROP ROLE IF EXISTS plain"))
        for role in ROLES:
            connection.execute(text(f"DROP ROLE IF EXISTS {role}"))
        connection.execute(text("CREATE ROLE plain LOGIN"))
        connection.execute(text("CREATE DATABASE plain OWNER plain TEMPLATE template0"))
    url = debian_server.url.set(username="plain", database="plain")
    engine = create_engine(url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        states = ensure_roles(connection)
    engine.dispose()

    assert {state.exists for state in states} == {False}
    assert states[-1].remedy == "CREATE ROLE loader NOLOGIN BYPASSRLS;"
