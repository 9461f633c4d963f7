"""Computing once: reuse, force, failure, and processes that die or compete."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from ts_forecast.db.engine import transaction
from ts_forecast.errors import DatabaseError, TrainingError
from ts_forecast.quarters import Quarter
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking import environment
from ts_forecast.tracking.runs import (
    RunKey,
    current_run,
    find_completed,
    supersede,
    tracked_run,
)

# Prints each step, so that the test knows where it is.
WORKER = """
import sys, time
from ts_forecast.db.engine import create_engine, transaction
from ts_forecast.quarters import Quarter
from ts_forecast.tracking.runs import RunKey, tracked_run

url, experiment_id, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
engine = create_engine(url)
key = RunKey(experiment_id, "train", "demo/net", "f" * 64, Quarter(2024, 1))
print("asks", flush=True)
with tracked_run(engine, key) as run:
    print("reused" if run.reused else "computes", run.run_id, flush=True)
    if not run.reused:
        time.sleep(seconds)
        with transaction(engine) as session:
            run.complete(session)
"""


def start_worker(database_url: str, key: RunKey, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, database_url, str(key.experiment_id), str(seconds)]
    root = Path(environment.__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


def compute(engine: Engine, key: RunKey, *, force: bool = False) -> int:
    with tracked_run(engine, key, force=force) as run:
        if not run.reused:
            with transaction(engine) as session:
                run.complete(session, {"answer": 42})
    return run.run_id


def states(engine: Engine) -> list[tuple[str, str, bool]]:
    """Status, stage and whether it stands, of every run, oldest first."""
    with transaction(engine) as session:
        rows = session.scalars(select(Run).order_by(Run.run_id)).all()
        return [(row.status, row.lifecycle_stage, row.deleted_at is None) for row in rows]


def test_tracked_run__completes_and_is_reused(engine: Engine, key: RunKey) -> None:
    first = compute(engine, key)

    with tracked_run(engine, key) as again:
        assert again.reused

    assert again.run_id == first
    assert states(engine) == [("completed", "active", True)]
    with transaction(engine) as session:
        run = find_completed(session, key.experiment_id, key.fingerprint)
        assert run is not None
        assert run.run_fingerprint == key.fingerprint
        assert run.end_time is not None and run.execution_duration_seconds is not None
        assert 0 <= run.execution_duration_seconds < 60
        assert run.quarter_start == Quarter(2024, 1).start.date()
        assert run.tags == {"kind": "train", "quarter": "2024-Q1"}
        assert run.metadata_ is not None
        assert run.metadata_["answer"] == 42
        assert {"host", "python", "versions"} <= set(run.metadata_)


def test_tracked_run__other_fingerprint_and_other_experiment_compute(
    engine: Engine, key: RunKey
) -> None:
    first = compute(engine, key)

    assert compute(engine, replace(key, fingerprint="e" * 64)) != first


def test_tracked_run__failure_is_kept_and_the_retry_takes_its_place(
    engine: Engine, key: RunKey
) -> None:
    with pytest.raises(TrainingError), tracked_run(engine, key):
        raise TrainingError("The loss is NaN\nat step 3.", remedy="Lower the rate.")
    assert states(engine) == [("failed", "active", True)]

    compute(engine, key)

    assert states(engine) == [("failed", "deleted", False), ("completed", "active", True)]
    with transaction(engine) as session:
        failed = session.scalars(select(Run).order_by(Run.run_id)).first()
        assert failed is not None and failed.metadata_ is not None
        error = failed.error_message
        assert error == "TrainingError: The loss is NaN at step 3. Lower the rate."
        assert failed.execution_duration_seconds is not None


def test_tracked_run__interruption_is_killed(engine: Engine, key: RunKey) -> None:
    with pytest.raises(KeyboardInterrupt), tracked_run(engine, key):
        raise KeyboardInterrupt
    assert states(engine) == [("killed", "active", True)]


def test_tracked_run__body_without_complete_fails(engine: Engine, key: RunKey) -> None:
    with pytest.raises(DatabaseError, match=r"ended without complete\(\)"):
        with tracked_run(engine, key):
            pass
    assert states(engine) == [("failed", "active", True)]


def test_tracked_run__results_and_status_commit_together(engine: Engine, key: RunKey) -> None:
    with pytest.raises(ZeroDivisionError):
        with tracked_run(engine, key) as run, transaction(engine) as session:
            session.add(make_model(run.run_id))
            run.complete(session)
            raise ZeroDivisionError
    with transaction(engine) as session:
        assert session.scalar(select(Model)) is None
    assert states(engine) == [("failed", "active", True)]


def test_tracked_run__error_after_commit_leaves_it_completed(engine: Engine, key: RunKey) -> None:
    with pytest.raises(ZeroDivisionError):
        with tracked_run(engine, key) as run:
            with transaction(engine) as session:
                run.complete(session)
            raise ZeroDivisionError
    assert states(engine) == [("completed", "active", True)]


def test_tracked_run__force_changes_places_only_on_completion(engine: Engine, key: RunKey) -> None:
    first = compute(engine, key)
    with transaction(engine) as session:
        session.add(make_model(first))

    with tracked_run(engine, key, force=True) as second:
        assert not second.reused
        # Readers still see the old one while the new one computes.
        assert states(engine) == [("completed", "active", True), ("running", "deleted", False)]
        with transaction(engine) as session:
            second.complete(session)

    assert states(engine) == [("completed", "deleted", False), ("completed", "active", True)]
    with transaction(engine) as session:
        standing = find_completed(session, key.experiment_id, key.fingerprint)
        assert standing is not None and standing.run_id == second.run_id
        # What the old run made still refers to it.
        assert session.execute(select(Model.run_id)).scalar_one() == first
    with tracked_run(engine, key) as third:
        assert third.reused and third.run_id == second.run_id


def test_tracked_run__failed_force_leaves_the_old_one_standing(engine: Engine, key: RunKey) -> None:
    first = compute(engine, key)

    with pytest.raises(ZeroDivisionError), tracked_run(engine, key, force=True):
        raise ZeroDivisionError

    assert states(engine) == [("completed", "active", True), ("failed", "deleted", False)]
    assert compute(engine, key) == first


def test_tracked_run__killed_process_is_found_by_the_next_attempt(
    engine: Engine, database_url: str, key: RunKey
) -> None:
    worker = start_worker(database_url, key, seconds=600)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "asks\n"
    assert worker.stdout.readline().startswith("computes")
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert states(engine) == [("running", "active", True)]

    begun = time.monotonic()
    compute(engine, key)

    # The server lets go of a dead process's lock at once.
    assert time.monotonic() - begun < 10
    assert states(engine) == [("killed", "deleted", False), ("completed", "active", True)]
    with transaction(engine) as session:
        killed = session.scalars(select(Run).order_by(Run.run_id)).first()
        assert killed is not None and killed.end_time is not None
        assert "next attempt" in (killed.error_message or "")


def test_tracked_run__killed_force_leaves_the_old_one_standing(engine: Engine, key: RunKey) -> None:
    first = compute(engine, key)
    second = tracked_run(engine, key, force=True)
    opened = second.__enter__()
    with engine.connect() as connection:
        # What a killed process leaves: a row that is running, and no lock.
        connection.execute(text(TERMINATE_HOLDERS))

    assert compute(engine, key) == first
    compute(engine, key, force=True)

    assert [status for status, _, _ in states(engine)] == ["completed", "killed", "completed"]
    with pytest.raises(DatabaseError, match="no longer this process's to complete"):
        with transaction(engine) as session:
            opened.complete(session)
    second.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_tracked_run__two_processes_compute_once(
    engine: Engine, database_url: str, key: RunKey
) -> None:
    first = start_worker(database_url, key, seconds=2)
    assert first.stdout is not None
    assert first.stdout.readline() == "asks\n"
    computes = first.stdout.readline().split()
    second = start_worker(database_url, key, seconds=2)

    answers, _ = second.communicate(timeout=60)
    first.communicate(timeout=60)

    assert computes[0] == "computes"
    assert answers.split() == ["asks", "reused", computes[1]]
    assert (first.returncode, second.returncode) == (0, 0)
    assert states(engine) == [("completed", "active", True)]


def test_tracked_run__lost_lock_never_completes_twice(engine: Engine, key: RunKey) -> None:
    slow = tracked_run(engine, key)
    opened = slow.__enter__()
    with engine.connect() as connection:
        connection.execute(text(TERMINATE_HOLDERS))

    compute(engine, key)

    with pytest.raises(DatabaseError, match="no longer this process's to complete"):
        with transaction(engine) as session:
            opened.complete(session)
    slow.__exit__(DatabaseError, DatabaseError("lost"), None)
    assert states(engine) == [("killed", "deleted", False), ("completed", "active", True)]


def test_complete__of_a_reused_run_is_refused(engine: Engine, key: RunKey) -> None:
    compute(engine, key)
    with pytest.raises(DatabaseError, match="was reused"):
        with tracked_run(engine, key) as run, transaction(engine) as session:
            run.complete(session)
    assert states(engine) == [("completed", "active", True)]


def test_supersede__keeps_one_and_touches_no_other_kind_or_quarter(
    engine: Engine, key: RunKey
) -> None:
    old, new = (
        compute(engine, replace(key, kind="evaluate", fingerprint=letter * 64)) for letter in "ab"
    )
    compute(engine, key)
    compute(engine, replace(key, kind="evaluate", fingerprint="c" * 64, quarter=Quarter(2024, 2)))

    with transaction(engine) as session:
        assert supersede(session, key.experiment_id, "evaluate", key.quarter, keep=new) == 1

    with transaction(engine) as session:
        standing = current_run(session, key.experiment_id, "evaluate", key.quarter)
        assert standing is not None and standing.run_id == new
        assert is_standing(session, old) is False
        assert session.scalar(text("SELECT count(*) FROM runs WHERE deleted_at IS NULL")) == 3


def test_tracked_run__tracker_hears_of_the_start_and_one_end(engine: Engine, key: RunKey) -> None:
    heard: list[str] = []

    class Ear:
        def start(self, run_uuid: object, name: str, tags: object) -> None:
            heard.append(f"start {name}")

        def finish(self, run_uuid: object, status: str) -> None:
            heard.append(status)

    with tracked_run(engine, key, tracker=Ear()) as run, transaction(engine) as session:
        run.complete(session)
    with pytest.raises(ZeroDivisionError), tracked_run(engine, key, force=True, tracker=Ear()):
        raise ZeroDivisionError
    with tracked_run(engine, key, tracker=Ear()):
        pass

    assert heard == ["start demo/net", "completed", "start demo/net", "failed"]


def test_source_revision__this_checkout_and_outside_of_git(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = Path(environment.__file__).parents[2]
    revision = environment.source_revision.__wrapped__()
    if (root / ".git").exists():
        assert revision.commit is not None and len(revision.commit) == 40
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.source_revision.__wrapped__() == environment.SourceRevision()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.source_revision.__wrapped__() == environment.SourceRevision()


# Ends the connections of this database that hold session-level advisory locks.
TERMINATE_HOLDERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_locks
WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def is_standing(session: Session, run_id: int) -> bool:
    return session.get_one(Run, run_id).deleted_at is None


def make_model(run_id: int) -> Model:
    return Model(
        run_id=run_id,
        model_name="net",
        model_type="NHITS",
        framework="neuralforecast",
        model_config={},
        model_file_path="none",
    )
