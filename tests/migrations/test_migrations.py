"""The schema: up, down, up again; equal to the tables; every object that the design names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, inspect, text

from ts_forecast.db import migrate, partitions
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.errors import DatabaseError
from ts_forecast.operations.design_objects import as_markdown, design_objects, is_there, origins
from ts_forecast.quarters import Quarter
from ts_forecast.tables import Base

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


def test_schema__every_object_of_the_design__is_there(empty: Engine) -> None:
    migrate.upgrade(empty)

    with empty.connect() as connection:
        objects = {(item.kind, item.name, item.table): item for item in design_objects()}
        missing = [
            str(item)
            for item in objects.values()
            if not item.superseded and not is_there(connection, item)
        ]
        found = connection.execute(text("SELECT indexname, indexdef FROM pg_indexes"))
        definitions = {name: definition for name, definition in found}

    assert len(objects) > 400
    assert missing == []
    for index, definition in DEFINITIONS.items():
        assert definition in definitions[index]


def test_design_document__is_what_the_live_schema_says(empty_database_url: str) -> None:
    fresh = create_engine(empty_database_url)
    try:
        document = as_markdown(origins(fresh))
    finally:
        fresh.dispose()

    assert "**missing**" not in document
    stands = Path(__file__).parents[2] / "docs" / "database-objects.md"
    # `ts-forecast db objects > docs/database-objects.md` writes it.
    assert stands.read_text(encoding="utf-8") == document


def test_schema__tables_and_columns__are_commented_in_english(engine: Engine) -> None:
    lacking = [str(table) for table in Base.metadata.tables.values() if not table.comment]
    with engine.connect() as connection:
        uncommented = connection.scalars(
            text(
                "SELECT c.oid::regclass || '.' || attname FROM pg_attribute a JOIN pg_class c "
                "ON c.oid = attrelid WHERE c.relkind IN ('r', 'p') AND NOT relispartition "
                "AND relnamespace::regnamespace::text IN ('public', 'audit', 'staging', 'archive') "
                "AND attnum > 0 AND NOT attisdropped AND relname <> 'alembic_version' "
                "AND col_description(c.oid, attnum) IS NULL ORDER BY 1"
            )
        ).all()

    assert lacking == []
    assert uncommented == []


def test_upgrade__database_of_the_first_revision__loses_nothing(empty: Engine) -> None:
    migrate.upgrade(empty, "0001")
    quarter = Quarter(2025, 1)
    leaf = partitions.leaf_table(quarter, 1)
    with empty.begin() as connection:
        _insert_owners(connection)
        connection.execute(text("""UPDATE experiments SET tags = '{"team": "x"}'"""))
        connection.execute(
            text(
                "INSERT INTO metrics (run_id, model_id, metric_name, metric_value) VALUES (1,1,'m',1)"
            )
        )
        partitions.ensure_quarter(connection, quarter)
        partitions.create_detached_leaf(connection, leaf)
        connection.execute(
            text(
                f"INSERT INTO {leaf} (experiment_id, run_id, model_id, prediction_date, unique_id, "
                "horizon, predicted_value) VALUES (1, 1, 1, '2025-02-01', 'a', 1, 2.5)"
            )
        )
        partitions.finish_leaf(connection, leaf, quarter, 1, "sha256:x rows:1 run:1")
        partitions.attach_leaf(connection, quarter, leaf, 1)
    tables = ["experiments", "runs", "models", "metrics", "predictions"]
    before = {table: _rows(empty, table) for table in tables}

    migrate.upgrade(empty)

    for table in tables:
        after = _rows(empty, table)
        assert [
            row.items() >= old.items() for row, old in zip(after, before[table], strict=True)
        ] == [True]
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT usage_count FROM tags WHERE tag_name = 'team'")) == 1
    migrate.downgrade(empty, "0001")
    assert {table: _rows(empty, table) for table in tables} == before


def _rows(engine: Engine, table: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list(connection.scalars(text(f"SELECT to_jsonb(t) FROM {table} t ORDER BY 1")))


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
