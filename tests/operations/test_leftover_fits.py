"""Checkpoints nobody will go on with: removed, and no others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ts_forecast.db.engine import transaction
from ts_forecast.operations.leftover_fits import remove_leftover_fits
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.tracking.runs import RunKey, tracked_run

QUARTER = Quarter(2023, 2)
OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def experiment(engine: Engine) -> int:
    with engine.begin() as connection:
        return int(
            connection.execute(
                text(
                    "INSERT INTO experiments (experiment_name) VALUES ('shop') "
                    "RETURNING experiment_id"
                )
            ).scalar_one()
        )


def checkpoint(settings: Settings, mark: str, pipeline: str = "shop") -> Path:
    folder = settings.home / "fits" / pipeline / mark[:16]
    folder.mkdir(parents=True)
    (folder / "fit.ckpt").write_bytes(b"x" * 1000)
    return folder


def key(experiment: int, mark: str) -> RunKey:
    return RunKey(experiment, "train", "shop/MLP 2023-Q2", mark, QUARTER)


def interrupt(engine: Engine, experiment: int, mark: str) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        tracked_run(engine, key(experiment, mark), tags={"model": "MLP"}),
    ):
        raise KeyboardInterrupt


def complete(engine: Engine, experiment: int, mark: str, model: str = "MLP") -> None:
    with (
        tracked_run(engine, key(experiment, mark), tags={"model": model}) as run,
        transaction(engine) as session,
    ):
        run.complete(session)


def test_remove_leftover_fits__quarter_trained_since__removes_it(
    engine: Engine, settings: Settings, experiment: int
) -> None:
    folder = checkpoint(settings, OLD)
    interrupt(engine, experiment, OLD)
    complete(engine, experiment, NEW, model="NHITS")
    assert remove_leftover_fits(engine, settings) == [], "another model's"

    complete(engine, experiment, "c" * 64)
    (removed,) = remove_leftover_fits(engine, settings)

    assert (removed.name, removed.size_bytes) == (f"shop/{OLD[:16]}", 1000)
    assert "trained the quarter since" in removed.reason
    assert not folder.exists()
    assert remove_leftover_fits(engine, settings) == []


def test_remove_leftover_fits__model_older_than_the_attempt__keeps_it(
    engine: Engine, settings: Settings, experiment: int
) -> None:
    complete(engine, experiment, NEW)
    folder = checkpoint(settings, OLD)
    interrupt(engine, experiment, OLD)

    assert remove_leftover_fits(engine, settings) == []
    assert folder.exists()


def test_remove_leftover_fits__fit_that_runs__keeps_its_own(
    engine: Engine, settings: Settings, experiment: int
) -> None:
    folder = checkpoint(settings, OLD)
    interrupt(engine, experiment, OLD)
    complete(engine, experiment, NEW)
    with (
        pytest.raises(KeyboardInterrupt),
        tracked_run(engine, key(experiment, OLD), tags={"model": "MLP"}),
    ):
        assert remove_leftover_fits(engine, settings) == []
        raise KeyboardInterrupt

    # The attempt is younger than the model that stands.
    assert remove_leftover_fits(engine, settings) == []
    assert folder.exists()


def test_remove_leftover_fits__unknown_to_the_database__is_kept_for_a_month(
    engine: Engine, settings: Settings
) -> None:
    folder = checkpoint(settings, OLD, "gone")
    other = settings.home / "fits" / "gone" / "notes"
    other.mkdir()
    assert remove_leftover_fits(engine, settings) == []

    long_ago = time.time() - 31 * 86_400
    os.utime(folder, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))

    assert [one.name for one in remove_leftover_fits(engine, settings)] == [f"gone/{OLD[:16]}"]
    assert other.exists()
