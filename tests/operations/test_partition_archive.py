"""Into the archive and back: every row is kept, readers see it or do not, and only the archive is dropped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.operations.conftest import OWNERS
from ts_forecast.configuration.values import set_value
from ts_forecast.db import partitions, short_locks
from ts_forecast.db.calendar_partitions import (
    AUDIT_LOGS,
    PREDICTIONS,
    SYSTEM_LOGS,
    TABLES,
    CalendarTable,
)
from ts_forecast.db.engine import transaction
from ts_forecast.db.partition_list import Partition, attached
from ts_forecast.db.periods import Period
from ts_forecast.errors import ConfigurationError, DatabaseError, LockedError
from ts_forecast.operations.archive_catalogue import (
    Archived,
    find_archived,
    find_attached,
    list_archived,
    older_than_days,
)
from ts_forecast.operations.database_maintenance import perform, planned_steps
from ts_forecast.operations.partition_archive import archive, drop_archived, restore
from ts_forecast.operations.partitions_ahead import ensure_ahead
from ts_forecast.operations.retention import expired, retention_days
from ts_forecast.predictions.slice import (
    PREDICTION_SCHEMA,
    publish_slice,
    read_slice,
    slice_version,
)
from ts_forecast.quarters import Quarter

NOW = datetime.now(UTC)
QUARTER = Quarter(2024, 1)
LEAF = f"public.{partitions.leaf_table(QUARTER, 1)}"


@pytest.fixture
def owner(engine: Engine) -> Engine:
    """A database of the embedded server with an experiment, a run and a model."""
    with engine.begin() as connection:
        for statement in OWNERS:
            connection.execute(text(statement))
    return engine


def publish(
    engine: Engine, count: int = 300, value: float = 0.0, quarter: Quarter = QUARTER
) -> None:
    nulls = pa.nulls(count, pa.float64())
    rows = pa.table(
        {
            "model_id": np.ones(count, np.int64),
            "unique_id": [f"s{i:06d}" for i in range(count)],
            "prediction_date": np.full(count, np.datetime64(quarter.start, "us")),
            "horizon": np.ones(count, np.int32),
            "predicted_value": np.full(count, value),
            "actual_value": nulls,
            "lower_bound": nulls,
            "upper_bound": nulls,
            "confidence_level": nulls,
            "quantiles": pa.nulls(count, pa.list_(pa.float64())),
        }
    ).cast(PREDICTION_SCHEMA)
    publish_slice(engine, experiment_id=1, run_id=1, quarter=quarter, rows=rows)


def fill_logs(engine: Engine, table: CalendarTable, past: Period) -> None:
    values = {
        SYSTEM_LOGS: "(log_level, log_message, created_at) SELECT 'INFO', 'x' || d",
        AUDIT_LOGS: "(table_name, operation_type, created_at) SELECT 'runs', 'DELETE'",
    }[table]
    span = f"'{past.start}'::timestamptz, '{past.end - timedelta(seconds=1)}', '1 day'"
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {table.qualified} {values}, d FROM generate_series({span}) d")
        )
    list(ensure_ahead(engine, tables=[table]))


def digest(engine: Engine, table: str) -> tuple[int, str | None]:
    query = f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"
    with engine.connect() as connection:
        count, rows = connection.execute(text(query)).one()
    return count, rows


def one(engine: Engine, name: str) -> Partition:
    with engine.connect() as connection:
        (found,) = find_attached(connection, [name])
    return found


def author(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT current_setting('app.current_user')"))


def catalogue(engine: Engine, *, with_dropped: bool = False) -> list[Archived]:
    with Session(engine) as session:
        return list_archived(session, with_dropped=with_dropped)


def test_archive__and_restore__keep_every_row(owned: Engine) -> None:
    for table in TABLES:
        away_and_back(owned, table)


def away_and_back(owned: Engine, table: CalendarTable) -> None:
    past = Period.of(NOW, table.months).shift(-5)
    if table is PREDICTIONS:
        publish(owned)
        name = LEAF
    else:
        fill_logs(owned, table, past)
        name = f"{table.schema}.{table.partition(past)}"
    before, whole = digest(owned, name), digest(owned, table.qualified)

    away = archive(owned, one(owned, name), reason="test")

    assert (away.was, away.table, away.rows) == (name, table.qualified, before[0])
    assert away.detached_by == author(owned)
    assert digest(owned, f"archive.{away.name}") == before
    assert digest(owned, table.qualified)[0] == whole[0] - before[0]
    assert catalogue(owned) == [away]

    assert restore(owned, away) == name

    assert digest(owned, table.qualified) == whole
    assert digest(owned, name) == before
    assert catalogue(owned) == []
    with owned.connect() as connection:
        references = connection.execute(
            text(
                "SELECT bool_and(convalidated), bool_and(conparentid <> 0) FROM pg_constraint "
                "WHERE conrelid = to_regclass(:name) AND contype IN ('f', 'p')"
            ),
            {"name": name},
        ).one()
    assert tuple(references) == (True, True)


def test_archive__slice_is_materialized_again__is_published_afresh(owned: Engine) -> None:
    publish(owned)
    away = archive(owned, one(owned, LEAF), reason="test")
    with Session(owned) as session:
        assert slice_version(session, 1, QUARTER) is None
    assert read_slice(owned, experiment_id=1, quarter=QUARTER).num_rows == 0

    publish(owned)
    assert read_slice(owned, experiment_id=1, quarter=QUARTER).num_rows == 300
    with pytest.raises(DatabaseError, match=rf"{LEAF} was made again.*Archive {LEAF} first"):
        restore(owned, away)

    # The second of the same name, its indexes too.
    again = archive(owned, one(owned, LEAF), reason="test")
    assert again.name == f"{away.name}_2"
    with pytest.raises(DatabaseError, match=rf"Several were {LEAF}: archive.*Name one of these"):
        find_archived(catalogue(owned), [LEAF])
    assert find_archived(catalogue(owned), [again.name]) == [again]
    restore(owned, again)
    publish(owned, count=400, value=1.0)
    assert read_slice(owned, experiment_id=1, quarter=QUARTER).num_rows == 400
    assert [found.name for found in catalogue(owned)] == [away.name]


def test_archive__indexes_of_the_same_name_lie_there__are_told_apart(owner: Engine) -> None:
    with owner.begin() as connection:
        partitions.ensure_quarter(connection, QUARTER)
    for _ in range(2):
        # As publishing beside a backup makes it: its indexes are named after it.
        with owner.begin() as connection:
            name = partitions.leaf_table(QUARTER, 1)
            partitions.create_detached_leaf(connection, name)
            partitions.attach_leaf(connection, QUARTER, name, 1)
        archive(owner, one(owner, name), reason="test")

    first, second = catalogue(owner)
    restore(owner, second)
    archive(owner, one(owner, LEAF), reason="test")
    restore(owner, first)
    assert one(owner, LEAF).parent == "public.predictions_2024_q1"


def test_archive__reader_of_the_parent__leaves_it_attached_and_says_so(
    owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "ATTEMPTS", 2)
    publish(owner)
    with owner.connect() as reader:
        assert reader.scalar(text("SELECT count(*) FROM predictions")) == 300

        with pytest.raises(LockedError, match=r"public.predictions is in use"):
            archive(owner, one(owner, LEAF), reason="test")

        assert reader.scalar(text("SELECT count(*) FROM predictions")) == 300
    assert catalogue(owner) == []
    assert archive(owner, one(owner, LEAF), reason="test").rows == 300


def test_archive__its_experiment_is_deleted__takes_the_archived_rows_along(owner: Engine) -> None:
    publish(owner)
    away = archive(owner, one(owner, LEAF), reason="test")
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM experiments"))

    assert digest(owner, f"archive.{away.name}")[0] == 0
    assert restore(owner, away) == LEAF


def test_restore__rows_of_its_period_came_late__are_moved_into_it(owner: Engine) -> None:
    past = Period.of(NOW, 1).shift(-8)
    fill_logs(owner, SYSTEM_LOGS, past)
    name = SYSTEM_LOGS.partition(past)
    whole = digest(owner, "system_logs")[0]
    away = archive(owner, one(owner, name), reason="test")
    with owner.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO system_logs (log_level, log_message, created_at) "
                f"VALUES ('INFO', 'late', '{past.start}')"
            )
        )
    assert digest(owner, "system_logs_default")[0] == 1

    restore(owner, away)

    assert digest(owner, "system_logs_default")[0] == 0
    assert digest(owner, "system_logs")[0] == whole + 1
    assert digest(owner, name)[0] == (away.rows or 0) + 1


def test_drop_archived__old_ones__are_gone_and_their_line_stays(owner: Engine) -> None:
    publish(owner)
    publish(owner, quarter=QUARTER.shift(1))
    for part in (LEAF, f"public.{partitions.leaf_table(QUARTER.shift(1), 1)}"):
        archive(owner, one(owner, part), reason="test")
    first, second = catalogue(owner)

    assert older_than_days([first, second], 1) == []
    assert older_than_days([first, second], 1, now=NOW + timedelta(days=2)) == [first, second]
    drop_archived(owner, first)

    assert catalogue(owner) == [second]
    gone = catalogue(owner, with_dropped=True)[0]
    assert gone.dropped_at is not None and gone.rows == 300
    assert older_than_days([gone], 0) == []
    for wrong in ({"name": "x; DROP TABLE runs"}, {"bounds": "DEFAULT"}, {"was": "public.x y"}):
        for change in (drop_archived, restore):
            with pytest.raises(DatabaseError, match="holds a line that is not ours"):
                change(owner, replace(second, **wrong))
    with owner.connect() as connection:
        assert not partitions.exists(connection, f"archive.{first.name}")
        assert connection.scalar(text("SELECT count(*) FROM archive.partitions")) == 2
    # Its name is free again.
    publish(owner)
    assert archive(owner, one(owner, LEAF), reason="test").name == first.name


def test_find_attached__quarter__is_all_of_its_slices_and_none_that_is_written_to(
    owner: Engine,
) -> None:
    publish(owner)
    publish(owner, quarter=QUARTER.shift(1))

    with owner.connect() as connection:
        for name in ("nowhere", "system_logs_default", SYSTEM_LOGS.partition(Period.of(NOW, 1))):
            with pytest.raises(DatabaseError, match="db partitions list"):
                find_attached(connection, [name])
        assert [part.name for part in find_attached(connection, ["predictions_2024_q1"])] == [LEAF]
        assert len(attached(connection, PREDICTIONS)) == 2


def test_retention__logs_go_after_90_days_the_rest_stays_until_told(engine: Engine) -> None:
    past = [Period.of(NOW - timedelta(days=days), 1) for days in (60, 95, 130, 200)]
    for period in past:
        fill_logs(engine, SYSTEM_LOGS, period)
    fill_logs(engine, AUDIT_LOGS, Period.of(NOW, 3).shift(-9))

    def names(table: CalendarTable) -> list[str]:
        with engine.connect() as connection:
            days = retention_days(connection, table)
            return [part.name for part in expired(connection, table, days=days, now=NOW)]

    old = [p for p in past if p.end <= NOW - timedelta(days=90)]
    assert len(old) >= 2
    assert names(SYSTEM_LOGS) == sorted(f"public.{SYSTEM_LOGS.partition(p)}" for p in old)
    assert names(AUDIT_LOGS) == []
    with transaction(engine) as session:
        set_value(session, "audit_retention_days", "365")
        set_value(session, "default_retention_days", 0)
    assert len(names(AUDIT_LOGS)) == 1
    assert names(SYSTEM_LOGS) == []
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE system_config SET config_value = 'soon' WHERE config_key ~ 'default_ret'")
        )
    with pytest.raises(
        ConfigurationError, match="default_retention_days is not of the type integer"
    ):
        names(SYSTEM_LOGS)
    with transaction(engine) as session:
        set_value(session, "default_retention_days", -1)
    with pytest.raises(ConfigurationError, match=r"is no number of days.*config set default_ret"):
        names(SYSTEM_LOGS)


def test_partitions__plain_owner_of_the_tables__may_do_all_of_it(plain: Engine) -> None:
    with plain.begin() as connection:
        for statement in OWNERS:
            connection.execute(text(statement))
    publish(plain)
    past = Period.of(NOW, 1).shift(-5)
    fill_logs(plain, SYSTEM_LOGS, past)
    name = f"public.{SYSTEM_LOGS.partition(past)}"
    before = digest(plain, name)

    for part in (LEAF, name):
        away = archive(plain, one(plain, part), reason="test")
        assert away.detached_by == author(plain)
        restore(plain, away)
        drop_archived(plain, archive(plain, one(plain, part), reason="test"))

    assert before[0] > 27
    assert digest(plain, "predictions")[0] == digest(plain, "system_logs")[0] == 0
    with plain.connect() as connection:
        steps = planned_steps(connection, everything=True)
    assert all(step.may for step in steps)
    assert [perform(plain, step).problem for step in steps if step.kind == "refresh"] == ["", ""]
