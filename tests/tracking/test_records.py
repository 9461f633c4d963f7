"""Runs that have ended, written whole or not at all, by any number of writers in any order."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from ts_forecast.db.engine import transaction
from ts_forecast.errors import TsForecastError
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.measurements import MetricRow
from ts_forecast.tracking.records import Recorded, RunRecord, record_runs
from ts_forecast.tracking.runs import RunKey, tracked_run

REPOSITORY = Path(__file__).parents[2]
WRITER = """
import sys
from ts_forecast.db.engine import create_engine
from ts_forecast.quarters import Quarter
from ts_forecast.tracking.measurements import MetricRow
from ts_forecast.tracking.records import RunRecord, record_runs
from ts_forecast.tracking.runs import RunKey
url, experiment = sys.argv[1], int(sys.argv[2])
values = {f"p{i}": i for i in range(20)}
curve = [MetricRow(f"m{i}", i) for i in range(50)]
record_runs(create_engine(url), (
    RunRecord(RunKey(experiment, "train", "trial", f"{n:064}", Quarter(2024, 1)), values, curve)
    for n in range(100_000)
))
"""


def record(key: RunKey, number: int = 0, **changes: Any) -> RunRecord:
    content: dict[str, Any] = {
        "key": replace(key, fingerprint=f"{number:064}", name=f"trial {number}"),
        "parameters": {"lr": 0.1 * number, "scaler": "robust"},
        "metrics": [MetricRow("mae", 1.0, step) for step in range(3)],
    }
    return RunRecord(**(content | changes))


def counts(engine: Engine) -> list[tuple[int, int]]:
    """Parameters and metrics of each run, by run_id."""
    query = text(
        "SELECT (SELECT count(*) FROM hyperparameters h WHERE h.run_id = r.run_id), "
        "(SELECT count(*) FROM metrics m WHERE m.run_id = r.run_id) FROM runs r ORDER BY r.run_id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def test_record_runs__come_back_whole_and_in_order(engine: Engine, key: RunKey) -> None:
    started = datetime(2024, 5, 1, tzinfo=UTC)
    whole = record(
        key,
        started=started,
        ended=started + timedelta(seconds=90),
        tags={"search": "s"},
        metadata={"note": "ü"},
    )

    first, second = record_runs(engine, [whole, record(key, 1)], source_type="script")

    assert (first.reused, second.reused) == (False, False)
    assert counts(engine) == [(2, 3), (2, 3)]
    with transaction(engine) as session:
        run = session.get_one(Run, first.run_id)
        assert (run.status, run.run_name, run.start_time) == ("completed", "trial 0", started)
        assert run.execution_duration_seconds == 90
        assert run.tags == {"search": "s", "kind": "train", "quarter": "2024-Q1"}
        assert run.metadata_ is not None
        assert run.metadata_["note"] == "ü" and "host" in run.metadata_


def test_record_runs__completed_already__is_reused(engine: Engine, key: RunKey) -> None:
    (first,) = record_runs(engine, [record(key)])

    assert record_runs(engine, [record(key)]) == [Recorded(first.run_id, reused=True)]
    with tracked_run(engine, record(key).key) as run:
        assert (run.reused, run.run_id) == (True, first.run_id)
    assert counts(engine) == [(2, 3)]


def test_record_runs__failed_trial__is_kept_and_the_next_takes_its_place(
    engine: Engine, key: RunKey
) -> None:
    record_runs(engine, [record(key, status="failed", error="NaN loss", metrics=())])
    (second,) = record_runs(engine, [record(key)])

    with transaction(engine) as session:
        rows = session.execute(select(Run.status, Run.lifecycle_stage).order_by(Run.run_id)).all()
        assert [tuple(row) for row in rows] == [("failed", "deleted"), ("completed", "active")]
        failed = session.scalars(select(Run).order_by(Run.run_id)).first()
        assert failed is not None and failed.error_message == "NaN loss"
    assert not second.reused


def test_record_runs__two_writers_in_opposite_orders__neither_is_shot(
    engine: Engine, key: RunKey
) -> None:
    answers: list[Recorded] = []
    errors: list[BaseException] = []

    def write(numbers: range) -> None:
        try:
            answers.extend(record_runs(engine, (record(key, number) for number in numbers)))
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=write, args=(numbers,))
        for numbers in (range(60), range(59, -1, -1), range(60))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert sum(not answer.reused for answer in answers) == 60
    assert counts(engine) == [(2, 3)] * 60


def test_record_runs__writer_killed__leaves_whole_runs(engine: Engine, key: RunKey) -> None:
    url = engine.url.render_as_string(hide_password=False)
    writing = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(key.experiment_id)], cwd=REPOSITORY
    )
    deadline = time.monotonic() + 60
    while len(counts(engine)) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    writing.send_signal(signal.SIGKILL)
    writing.wait()

    found = counts(engine)
    assert len(found) >= 20
    assert set(found) == {(20, 50)}


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"parameters": {"a\0b": 1}}, r"parameter 'a\\x00b' .* its name holds NUL at character 2"),
        ({"parameters": {"": 1}}, "its name is empty"),
        ({"parameters": {"k" * 256: 1}}, "has 256 characters, 255 are allowed"),
        ({"parameters": {"path": "a\0"}}, "parameter path .* its text holds NUL at character 2"),
        ({"parameters": {"path": "\ud800"}}, "parameter path .* half a surrogate pair"),
        ({"parameters": {"lr": float("nan")}}, "parameter lr cannot be recorded"),
        ({"parameters": {"grid": [1.0, float("inf")]}}, "parameter grid cannot be recorded"),
        ({"metrics": [MetricRow("mae", float("nan"))]}, "metric mae is nan at step 0"),
        ({"metrics": [MetricRow("mae", float("-inf"), 3)]}, "metric mae is -inf at step 3"),
        ({"metrics": [MetricRow("", 1.0)]}, "its name is empty"),
        ({"metrics": [MetricRow("m\0", 1.0)]}, "its name holds NUL"),
        ({"metrics": [MetricRow("m" * 101, 1.0)]}, "has 101 characters, 100 are allowed"),
        ({"metrics": [MetricRow("m", 1.0, 2**31)]}, "its step is 2147483648"),
        ({"metrics": [MetricRow("m", 1.0, -1)]}, "its step is -1"),
        ({"metrics": [MetricRow("m", 1.0, 0, "test", "c\udfff")]}, "its context holds half a"),
        ({"error": "a\0"}, "its error holds NUL"),
        ({"tags": {"t": "\0"}}, "tags.t holds NUL"),
        ({"metadata": {"a": [1, {"b": float("nan")}]}}, r"metadata.a\[1\].b is nan"),
        ({"metadata": {"a": object()}}, "metadata.a is of type object"),
        ({"started": datetime(2024, 1, 1)}, "started has no time zone"),
        (
            {
                "started": datetime(2024, 1, 2, tzinfo=UTC),
                "ended": datetime(2024, 1, 1, tzinfo=UTC),
            },
            "before it started",
        ),
    ],
)
def test_record_runs__what_cannot_be_stored__is_named_and_nothing_is_written(
    engine: Engine, key: RunKey, changes: dict[str, Any], pattern: str
) -> None:
    with pytest.raises(TsForecastError, match=pattern):
        record_runs(engine, [record(key, 1), record(key, 2, **changes)])

    assert counts(engine) == [(2, 3)]


def test_tracked_run__error_that_cannot_be_stored__is_recorded_all_the_same(
    engine: Engine, key: RunKey
) -> None:
    with pytest.raises(ValueError, match="bad"), tracked_run(engine, key):
        raise ValueError("bad \0 text \ud800")

    with transaction(engine) as session:
        run = session.scalars(select(Run)).one()
        assert run.status == "failed"
        assert run.error_message == "ValueError: bad \ufffd text \ufffd"
