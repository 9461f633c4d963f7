"""Publishing beside readers, writers, backups and other hands, and with a writer that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from ts_forecast.db import partitions
from ts_forecast.db.engine import exclusive, transaction
from ts_forecast.errors import PublishError
from ts_forecast.predictions import slice as slice_module
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, Published, publish_slice, slice_version
from ts_forecast.quarters import Quarter

REPOSITORY = Path(__file__).parents[2]
QUARTER = Quarter(2024, 1)
LEAF = partitions.leaf_table(QUARTER, 1)
OWNERS = (
    "INSERT INTO experiments (experiment_name) VALUES ('shop')",
    "INSERT INTO runs (experiment_id, run_name, run_fingerprint) VALUES (1, 'r', 'f')",
    "INSERT INTO models (run_id, model_name, model_type, framework, model_config, "
    "model_file_path) VALUES (1, 'm', 'MLP', 'neuralforecast', '{}', 'x')",
)
PUBLISH = """
import sys
import pyarrow as pa
from ts_forecast.db.engine import create_engine
from ts_forecast.predictions.slice import publish_slice
from ts_forecast.quarters import Quarter
url, rows = sys.argv[1:]
with pa.memory_map(rows) as source:
    table = pa.ipc.open_file(source).read_all()
publish_slice(create_engine(url), experiment_id=1, run_id=1, quarter=Quarter(2024, 1), rows=table)
"""


@pytest.fixture(autouse=True)
def owners(engine: Engine) -> None:
    """An experiment, a run and a model for rows to refer to."""
    with engine.begin() as connection:
        for statement in OWNERS:
            connection.execute(text(statement))


def table(count: int, value: float = 0.0) -> pa.Table:
    nulls = pa.nulls(count, pa.float64())
    return pa.table(
        {
            "model_id": np.ones(count, np.int64),
            "unique_id": [f"s{i:06d}" for i in range(count)],
            "prediction_date": np.full(count, np.datetime64("2024-02-01", "us")),
            "horizon": np.ones(count, np.int32),
            "predicted_value": np.full(count, value),
            "actual_value": nulls,
            "lower_bound": nulls,
            "upper_bound": nulls,
            "confidence_level": nulls,
            "quantiles": pa.nulls(count, pa.list_(pa.float64())),
        }
    ).cast(PREDICTION_SCHEMA)


def publish(engine: Engine, rows: pa.Table) -> Published:
    return publish_slice(engine, experiment_id=1, run_id=1, quarter=QUARTER, rows=rows)


def count(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT count(*) FROM predictions")) or 0)


def detached(connection: Connection) -> list[str]:
    query = "SELECT relname FROM pg_class WHERE relname ~ '_[no][0-9a-f]{8}$' AND relkind = 'r'"
    return list(connection.scalars(text(query)))


@contextmanager
def backup(engine: Engine) -> Iterator[None]:
    """What pg_dump holds from its first second to its last: a read lock on every table."""
    with engine.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        connection.execute(text(f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE"))
        yield


@contextmanager
def beside(work: object, *arguments: object) -> Iterator[None]:
    """Call ``work`` again and again in a thread; its first error is raised at the end."""
    stop, errors = threading.Event(), list[BaseException]()

    def loop() -> None:
        try:
            while not stop.is_set():
                work(*arguments)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def test_publish_slice__readers_poll__see_whole_slices_and_hardly_wait(engine: Engine) -> None:
    publish(engine, table(3000))
    seen, waits = set[int](), list[float]()

    def read() -> None:
        begun = time.monotonic()
        with engine.connect() as connection:
            seen.add(count(connection))
        waits.append(time.monotonic() - begun)

    with beside(read), beside(read):
        for attempt in range(8):
            publish(engine, table(5000 if attempt % 2 else 3000, float(attempt + 1)))

    assert seen == {3000, 5000}
    assert max(waits) < 2, "readers waited for a writer"


def test_publish_slice__runs_are_written_in_another_order__nobody_is_shot(engine: Engine) -> None:
    def track() -> None:
        # models before runs, where publishing locks runs before models.
        with engine.begin() as connection:
            connection.execute(text("UPDATE models SET status = 'trained'"))
            time.sleep(0.02)
            connection.execute(text("UPDATE runs SET run_description = 'x'"))

    with beside(track):
        for attempt in range(5):
            publish(engine, table(500, float(attempt)))

    with engine.connect() as connection:
        assert count(connection) == 500


@pytest.mark.parametrize("is_first", [True, False])
def test_publish_slice__backup_runs__publishes_all_the_same(
    engine: Engine, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_module, "_ATTEMPTS", 2)
    if not is_first:
        publish(engine, table(300))
    with backup(engine):
        assert publish(engine, table(400, 1.0)).changed

        with engine.connect() as connection:
            assert count(connection) == 400
        assert not publish(engine, table(400, 1.0)).changed

    publish(engine, table(500, 2.0))
    with engine.connect() as connection:
        assert count(connection) == 500
        # What could not be dropped beside the backup is gone.
        assert detached(connection) == []


def test_publish_slice__writer_keeps_runs_locked__leaves_the_old_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_module, "_ATTEMPTS", 2)
    publish(engine, table(300))
    with engine.connect() as other:
        other.execute(text("UPDATE runs SET run_description = 'x'"))

        with pytest.raises(PublishError, match=r"keeps a lock.*pg_stat_activity"):
            publish(engine, table(400, 1.0))

        with engine.connect() as connection:
            assert count(connection) == 300
    assert publish(engine, table(400, 1.0)).changed


def test_publish_slice__writer_killed_in_its_copy__old_slice_stands(
    engine: Engine, tmp_path: Path
) -> None:
    publish(engine, table(300))
    rows = tmp_path / "rows.arrow"
    with pa.OSFile(str(rows), "wb") as sink, pa.ipc.new_file(sink, PREDICTION_SCHEMA) as writer:
        writer.write_table(table(400_000, 1.0))
    url = engine.url.render_as_string(hide_password=False)
    copying = text(
        "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'COPY%' AND state = 'active'"
    )

    writing = subprocess.Popen([sys.executable, "-c", PUBLISH, url, str(rows)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.scalar(copying):
                break
        time.sleep(0.002)
    else:
        pytest.fail("the writer never copied")
    writing.send_signal(signal.SIGKILL)
    writing.wait()

    with engine.connect() as connection:
        assert count(connection) == 300
        assert len(detached(connection)) == 1
    with exclusive(engine, "slice", LEAF):
        pass
    publish(engine, table(500, 2.0))
    with engine.connect() as connection:
        assert count(connection) == 500
        assert detached(connection) == []


@pytest.mark.parametrize("name", [LEAF, partitions.quarter_table(QUARTER)])
def test_publish_slice__partition_detached_by_hand__is_not_dropped(
    engine: Engine, name: str
) -> None:
    publish(engine, table(300))
    parent = partitions.PARENT if name != LEAF else partitions.quarter_table(QUARTER)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {parent} DETACH PARTITION {name}"))

    with pytest.raises(PublishError, match=rf"{name} is there and no partition"):
        publish(engine, table(400, 1.0))

    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM {name}")) == 300
        assert detached(connection) == []


def test_publish_slice__run_that_published_is_soft_deleted__rows_keep_their_lineage(
    engine: Engine,
) -> None:
    publish(engine, table(300))
    with transaction(engine) as session:
        session.execute(
            text(
                "UPDATE runs SET status = 'failed', deleted_at = now(), lifecycle_stage = 'deleted'"
            )
        )

    assert not publish(engine, table(300)).changed

    with Session(engine) as session:
        version = slice_version(session, 1, QUARTER)
        assert version is not None
        assert (version.rows, version.run_id) == (300, 1)
        assert (
            session.scalar(text("SELECT count(*) FROM predictions JOIN runs USING (run_id)")) == 300
        )


def test_publish_slice__leaf__has_the_parents_keys_and_validated_references(engine: Engine) -> None:
    publish(engine, table(300))

    with engine.connect() as connection:
        constraints = connection.execute(
            text(
                "SELECT contype::text, count(*), bool_and(convalidated), bool_and(conparentid <> 0) "
                "FROM pg_constraint WHERE conrelid = to_regclass(:leaf) AND contype IN ('f', 'p') "
                "GROUP BY contype ORDER BY contype"
            ),
            {"leaf": LEAF},
        ).all()
        plan = "\n".join(
            connection.scalars(
                text(
                    "EXPLAIN SELECT * FROM predictions WHERE experiment_id = 1 "
                    "AND prediction_date >= '2024-01-01' AND prediction_date < '2024-04-01'"
                )
            )
        )

    assert [tuple(row) for row in constraints] == [("f", 3, True, True), ("p", 1, True, True)]
    assert LEAF in plan
    assert "Append" not in plan
