"""The schema: up, down, up again; equal to the tables; every object that the design names."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine, inspect, text

from ts_forecast.db import migrate, partitions
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.errors import DatabaseError
from ts_forecast.quarters import Quarter
from ts_forecast.tables import Base

DEBIAN = Path("/usr/lib/postgresql/15/bin")
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


@pytest.fixture(params=["embedded 18", "Debian's 15"])
def empty(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty database on either server."""
    if request.param == "embedded 18":
        url = request.getfixturevalue("empty_database_url")
        engine = create_engine(url)
        yield engine
        engine.dispose()
        return
    if not (DEBIAN / "initdb").exists():
        pytest.skip("no PostgreSQL 15 on this machine (Debian: postgresql-15)")
    yield from _debian_server()


def _debian_server() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="pg15-", dir="/tmp"))
    as_user: dict[str, object] = {}
    if shutil.which("id") and subprocess.check_output(["id", "-u"]).strip() == b"0":
        nobody = pwd.getpwnam("nobody")
        shutil.chown(folder, nobody.pw_uid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = folder / "data"
    subprocess.run(
        [DEBIAN / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd=folder,
        **as_user,  # type: ignore[call-overload]
    )
    server = subprocess.Popen(
        [DEBIAN / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,  # type: ignore[call-overload]
    )
    engine = create_engine(f"postgresql+psycopg://postgres@/postgres?host={folder}")
    try:
        for _ in range(100):
            if (folder / ".s.PGSQL.5432").exists():
                break
            subprocess.run(["sleep", "0.1"], check=True)
        yield engine
    finally:
        engine.dispose()
        server.terminate()
        server.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


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
        indexes = set(connection.scalars(text("SELECT indexname FROM pg_indexes")))
        constraints = set(connection.scalars(text("SELECT conname FROM pg_constraint")))
        comments = set(
            connection.scalars(
                text(
                    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') "
                    "AND obj_description(oid, 'pg_class') IS NOT NULL"
                )
            )
        )
    assert set(INDEXES) <= indexes
    assert set(CONSTRAINTS) <= constraints
    assert set(Base.metadata.tables) <= comments


def test_downgrade__with_partitions_and_orphans__leaves_nothing(empty: Engine) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        partitions.ensure_quarter(connection, Quarter(2025, 1))
        orphan = f"{partitions.leaf_table(Quarter(2025, 1), 7)}_n0123abcd"
        partitions.create_detached_leaf(connection, orphan)

    migrate.downgrade(empty, "base")

    assert inspect(empty).get_table_names() == ["alembic_version"]


def test_autogenerate__with_partitions__proposes_nothing(empty: Engine) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        partitions.ensure_quarter(connection, Quarter(2025, 1))
    config = migrate._config()
    config.attributes["connection"] = empty

    command.check(config)


def test_updated_at__on_update__moves(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))
    with transaction(engine) as session:
        session.execute(text("UPDATE experiments SET experiment_description = 'x'"))
        moved = session.scalar(text("SELECT updated_at > created_at FROM experiments"))

    assert moved


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
