"""Sizes, indexes, maintenance and the capacity report on a real server."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.operations.conftest import OWNERS
from ts_forecast.db import partitions
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.errors import DatabaseError
from ts_forecast.operations import database_maintenance
from ts_forecast.operations.database_capacity import (
    SOURCE,
    CapacityReport,
    TableSize,
    capacity_report,
    growth,
    keep_report,
)
from ts_forecast.operations.database_indexes import index_report
from ts_forecast.operations.database_maintenance import Step, perform, planned_steps, reindex
from ts_forecast.operations.database_tables import table_states
from ts_forecast.operations.materialized_views import materialized_views, refresh
from ts_forecast.quarters import Quarter

NOW = datetime(2025, 6, 1, tzinfo=UTC)
BIG = (
    "CREATE TABLE big AS SELECT g AS id, md5(g::text) AS hash FROM generate_series(1, 60000) g",
    "CREATE INDEX big_id ON big (id)",
    "CREATE INDEX big_id_hash ON big (id, hash)",
    "CREATE INDEX big_id_hash_twin ON big (id, hash)",
    "CREATE INDEX big_partial ON big (id) WHERE id > 5",
    "CREATE INDEX big_down ON big (id DESC)",
    "CREATE UNIQUE INDEX big_unique ON big (hash)",
    "CREATE INDEX big_expression ON big ((id + 1))",
    "ANALYZE big",
)


def run(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))
        # Else the counters are a second behind.
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.execute(text("SELECT 1"))


def test_index_report__redundant_and_unused__are_told_from_those_that_work(
    migrated: Engine,
) -> None:
    run(migrated, *BIG, "SET enable_seqscan = off", "SELECT hash FROM big WHERE id = 7")

    with migrated.connect() as connection:
        indexes = {row.index: row for row in index_report(connection).indexes}

    mine = {name: row for name, row in indexes.items() if row.table == "public.big"}
    covered = {name: row.covered_by for name, row in mine.items() if row.covered_by}
    assert covered == {
        "public.big_id": "public.big_id_hash",
        "public.big_id_hash_twin": "public.big_id_hash",
    }
    assert mine["public.big_unique"].guards and not mine["public.big_unique"].is_unused
    assert mine["public.big_partial"].is_unused
    # The design names both: the report says what they are.
    assert indexes["public.idx_config_key"].covered_by == "public.uq_system_config_config_key"


def test_reindex__bloated__is_rebuilt_to_what_was_estimated(engine: Engine) -> None:
    run(engine, *BIG, "DELETE FROM big WHERE id % 10 <> 0", "VACUUM (ANALYZE) big")
    with engine.connect() as connection:
        before = {row.index: row for row in index_report(connection).indexes}["public.big_id_hash"]
    assert before.bloat_bytes is not None

    freed = reindex(engine, "big_id_hash")

    assert freed == pytest.approx(before.bloat_bytes, rel=0.1)
    with engine.connect() as connection:
        after = {row.index: row for row in index_report(connection).indexes}["public.big_id_hash"]
    assert after.size_bytes == before.size_bytes - freed
    assert (after.bloat_bytes or 0) < 0.1 * before.bloat_bytes


def test_reindex__partitioned_or_unknown__is_done_or_refused(quiet: Engine) -> None:
    assert reindex(quiet, "public.idx_logs_level") == 0
    with pytest.raises(DatabaseError, match=r"no index pg_class_oid_index.*db indexes"):
        reindex(quiet, "pg_class_oid_index")


def test_reindex__ended_by_hand__leaves_nothing_behind(engine: Engine) -> None:
    run(engine, *BIG)
    errors = list[BaseException]()

    def rebuild() -> None:
        try:
            reindex(engine, "big_id")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=rebuild)
    with engine.connect() as older, engine.connect() as looker:
        # It waits for transactions that wrote to the table.
        older.execute(text("UPDATE big SET hash = 'x' WHERE id = 1"))
        thread.start()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            ended = looker.scalar(
                text(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                    "WHERE query ILIKE 'REINDEX%' AND wait_event_type = 'Lock'"
                )
            )
            looker.rollback()
            if ended:
                break
            time.sleep(0.02)
        older.rollback()
        thread.join()

    assert isinstance(errors[0], DatabaseError)
    assert "big_id was not rebuilt" in str(errors[0])
    with engine.connect() as connection:
        left = connection.scalars(
            text("SELECT relname FROM pg_class WHERE relname ~ '_ccnew' OR relname ~ '_ccold'")
        ).all()
    assert left == []


def test_table_states__partitions__are_rolled_up_under_their_parent(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in OWNERS:
            connection.execute(text(statement))
        for quarter in (Quarter(2025, 1), Quarter(2025, 2)):
            partitions.ensure_quarter(connection, quarter)
            leaf = partitions.leaf_table(quarter, 1)
            partitions.create_detached_leaf(connection, leaf)
            connection.execute(
                text(
                    f"INSERT INTO {leaf} (experiment_id, run_id, model_id, prediction_date, "
                    f"unique_id, horizon, predicted_value) SELECT 1, 1, 1, '{quarter.start}', "
                    "'s' || g, 1, 1 FROM generate_series(1, 500) g"
                )
            )
            partitions.finish_leaf(connection, leaf, quarter, 1, "sha256:x rows:500 run:1")
            partitions.attach_leaf(connection, quarter, leaf, 1)
    run(engine, "ANALYZE predictions_2025_q1_e1", "ANALYZE predictions_2025_q2_e1")

    with engine.connect() as connection:
        rolled = {row.table: row for row in table_states(connection)}
        flat = {row.table: row for row in table_states(connection, rolled_up=False)}
        sizes = capacity_report(connection).slices

    whole = rolled["public.predictions"]
    parts = [row for name, row in flat.items() if name.startswith("public.predictions_")]
    assert (whole.partitions, whole.rows) == (2, 1000)
    assert whole.total_bytes == sum(part.total_bytes for part in parts)
    assert whole.total_bytes == whole.table_bytes + whole.index_bytes
    assert whole.last_analyze == min(part.last_analyze for part in parts if part.last_analyze)
    assert "public.system_logs" in rolled and "audit.audit_logs" in rolled
    assert not any(name.startswith("pg_catalog") for name in rolled)
    assert [(size.pipeline, size.quarter, size.rows) for size in sizes] == [
        ("shop", "2025-Q1", 500),
        ("shop", "2025-Q2", 500),
    ]


def test_maintain__what_needs_it__is_vacuumed_analyzed_and_refreshed(migrated: Engine) -> None:
    run(
        migrated,
        "CREATE TABLE big AS SELECT g AS id FROM generate_series(1, 5000) g",
        "DELETE FROM big WHERE id <= 2500",
        "INSERT INTO system_logs (log_level, log_message) "
        "SELECT 'INFO', 'x' FROM generate_series(1, 200)",
        "INSERT INTO experiments (experiment_name) VALUES ('shop')",
    )
    with migrated.connect() as connection:
        steps = planned_steps(connection)
        assert connection.scalar(text("SELECT count(*) FROM mv_experiment_summary")) == 0
    plan = {(step.kind, step.target): step for step in steps}
    assert "2500 dead rows" in plan["vacuum", "public.big"].reason
    assert ("analyze", "public.system_logs") in plan
    assert ("refresh", "public.mv_model_performance") in plan

    done = [perform(migrated, step) for step in steps]

    assert [one.problem for one in done] == [""] * len(done)
    with migrated.connect() as connection:
        states = {row.table: row for row in table_states(connection)}
        assert states["public.big"].last_vacuum is not None
        analyzed = text(
            "SELECT last_analyze FROM pg_stat_all_tables WHERE relid = 'system_logs'::regclass"
        )
        assert connection.scalar(analyzed) is not None
        assert (
            connection.scalar(text("SELECT experiment_name FROM mv_experiment_summary")) == "shop"
        )
        again = planned_steps(connection)
    assert {step.kind for step in again} == {"refresh"}


def test_perform__table_is_locked__is_left_and_said(
    quiet: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_maintenance, "_LOCK_TIMEOUT", "200ms")
    with quiet.connect() as other:
        other.execute(text("LOCK TABLE runs IN SHARE UPDATE EXCLUSIVE MODE"))

        done = perform(quiet, Step("vacuum", "public.runs", "a test"))

    assert done.problem.startswith("left:") and "lock timeout" in done.problem
    assert 0.2 <= done.seconds < 20
    # The pool's connections are as they were.
    with quiet.connect() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "0"


def test_perform__by_a_role_that_may_not__is_left_and_said(quiet: Engine) -> None:
    run(quiet, "GRANT data_scientist TO CURRENT_USER")
    url = quiet.url.update_query_dict({"options": "-c role=data_scientist -c timezone=UTC"})
    scientist = create_engine(url.render_as_string(hide_password=False))

    with scientist.connect() as connection:
        steps = planned_steps(connection, everything=True)

    assert steps and not any(step.may for step in steps)
    assert perform(scientist, steps[0]).problem == "left: only its owner may"
    scientist.dispose()


def test_refresh__reader_of_the_view__neither_waits(engine: Engine) -> None:
    with engine.connect() as reader:
        assert reader.scalar(text("SELECT count(*) FROM mv_experiment_summary")) == 0
        run(engine, "INSERT INTO experiments (experiment_name) VALUES ('shop')")
        with engine.connect() as connection:
            views = materialized_views(connection)
        assert [view.name for view in views] == [
            "public.mv_experiment_summary",
            "public.mv_model_performance",
        ]
        assert all(view.concurrently and view.may_refresh for view in views)

        assert refresh(engine, views[0]).rows == 1

    with engine.connect() as reader:
        assert reader.scalar(text("SELECT count(*) FROM mv_experiment_summary")) == 1


def test_refresh__never_filled__is_filled(engine: Engine) -> None:
    run(engine, "CREATE MATERIALIZED VIEW mine AS SELECT 1 AS one WITH NO DATA")
    with engine.connect() as connection:
        view = next(v for v in materialized_views(connection) if v.name == "public.mine")

    assert not view.concurrently
    assert refresh(engine, view).rows == 1


def report(at: datetime, size: int, **tables: int) -> CapacityReport:
    return CapacityReport(
        at, size, [TableSize(name, 0, bytes_) for name, bytes_ in tables.items()], []
    )


def test_growth__reports_on_record__says_how_much_and_when_it_is_full(engine: Engine) -> None:
    reports = [
        report(NOW, 1_000_000, runs=600, gone=7),
        report(NOW + timedelta(days=10), 2_000_000, runs=600),
        report(NOW + timedelta(days=20), 3_000_000, runs=900, models=5),
    ]
    found = []
    for one in reports:
        with transaction(engine) as session:
            found.append(growth(session, one))
            keep_report(session, one)

    assert found[0] is None
    first, second = found[1:]
    assert first is not None and second is not None
    assert first.tables == {"gone": -7}
    assert (second.since, second.bytes) == (NOW + timedelta(days=10), 1_000_000)
    assert second.tables == {"models": 5, "runs": 300}
    assert second.bytes_per_day == pytest.approx(100_000)
    assert second.full_at(reports[2], 4_000_000) == NOW + timedelta(days=30)
    assert second.full_at(reports[2], 2_000_000) == reports[2].at
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM system_logs WHERE log_source = :source")
        assert connection.scalar(query, {"source": SOURCE}) == 3


def test_growth__shrinks_or_is_of_today__is_never_full(engine: Engine) -> None:
    with transaction(engine) as session:
        keep_report(session, report(NOW, 5_000_000))
        same_day = growth(session, report(NOW + timedelta(hours=3), 6_000_000))
        later = report(NOW + timedelta(days=9), 4_000_000)
        shrunk = growth(session, later)

    assert same_day is not None and same_day.bytes_per_day is None
    assert shrunk is not None and (shrunk.bytes_per_day or 0) < 0
    assert shrunk.full_at(later, 10**12) is None


def test_keep_report__by_a_reader__is_refused_and_the_figures_are_there(quiet: Engine) -> None:
    url = quiet.url.update_query_dict({"options": "-c role=readonly_user -c timezone=UTC"})
    reader = create_engine(url.render_as_string(hide_password=False))
    with reader.connect() as connection:
        now = capacity_report(connection)

    assert now.database_bytes > 1_000_000 and now.tables
    with pytest.raises(DBAPIError, match="permission denied"), transaction(reader) as session:
        keep_report(session, now)
    reader.dispose()
