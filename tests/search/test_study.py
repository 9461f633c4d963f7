"""Searches that outlive their process, and that several processes share."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine

from resources.device_locks import lock_path, take_device, take_lock
from resources.devices import Device
from resources.free_slots import FreeSlots
from tests.search.conftest import Searching
from tests.search.searches import REPOSITORY, rows, train, tried
from ts_forecast.search import trial
from ts_forecast.search.trials import choose_parameters

KILLED = """
import os, pickle, signal, sys
sys.path.insert(0, {repository!r})
from tests.search.searches import train
from ts_forecast.db.engine import create_engine
from ts_forecast.search import trial
problem = pickle.load(open({file!r}, "rb"))
really, fits = trial.fit_model, []
def fit(*arguments):
    fits.append(1)
    if len(fits) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return really(*arguments)
trial.fit_model = fit
train(problem, create_engine({url!r}))
"""
ENDED = "SELECT tags->>'kind', status, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1, 2"


def test_choose_parameters__killed_in_the_middle__goes_on_and_ends_as_without(
    searching: Searching,
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = searching(trials=4)
    file = tmp_path / "problem.pickle"
    file.write_bytes(pickle.dumps(problem))
    script = KILLED.format(repository=str(REPOSITORY), file=str(file), url=database_url)

    died = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False)

    assert died.returncode == -signal.SIGKILL
    assert rows(engine, ENDED) == [
        ("train", "running", 1),
        ("trial", "completed", 2),
        ("trial", "running", 1),
    ]
    fits: list[int] = []
    really = trial.fit_model
    monkeypatch.setattr(trial, "fit_model", lambda *a: fits.append(1) or really(*a))

    outcome = train(problem, engine)

    # The one that was lost and the one that had not begun.
    assert len(fits) == 2
    table = tried(engine, outcome.run_id)
    assert table["trial"].tolist() == [0, 1, 2, 3]
    assert rows(engine, ENDED) == [
        ("train", "completed", 1),
        ("train", "killed", 1),
        ("trial", "completed", 6),
        ("trial", "killed", 1),
    ]
    states = "SELECT state::text, count(*) FROM optuna.trials GROUP BY 1 ORDER BY 1"
    assert rows(engine, states) == [("COMPLETE", 4), ("FAIL", 1)]
    again = train(problem, engine, force=True)
    pd.testing.assert_frame_equal(table, tried(engine, again.run_id))
    assert rows(engine, "SELECT count(*) FROM optuna.studies") == [(2,)]


def test_choose_parameters__killed_again_and_again__gives_the_combination_up(
    searching: Searching, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = searching(trials=2)
    really = trial.fit_model
    fits: list[int] = []

    def deadly(*arguments: Any) -> Any:
        fits.append(1)
        if len(fits) <= 5:
            raise KeyboardInterrupt
        return really(*arguments)

    monkeypatch.setattr(trial, "fit_model", deadly)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            train(problem, engine)

    outcome = train(problem, engine)

    assert tried(engine, outcome.run_id)["status"].tolist() == ["killed", "completed"]


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[FreeSlots]:
    devices = [Device(f"cpu-{slot}", is_gpu=False, threads=1) for slot in range(3)]
    lent = FreeSlots(devices, tmp_path / "locks", "tests")
    yield lent
    lent.close()


def test_choose_parameters__free_slots__trials_run_beside_and_are_as_many_as_asked(
    searching: Searching, engine: Engine, slots: FreeSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = searching(trials=6)
    really = trial.fit_model
    beside = "SELECT metadata->>'slot' FROM runs WHERE metadata ? 'slot' AND status = 'completed'"

    def slow(*arguments: Any) -> Any:
        # As a fit that takes longer than the other processes' imports.
        end = time.monotonic() + 90
        while not rows(engine, beside) and time.monotonic() < end:
            time.sleep(0.1)
        return really(*arguments)

    monkeypatch.setattr(trial, "fit_model", slow)
    choose = partial(choose_parameters, slots=slots, settings=problem.settings)
    # Ours, and one that another step has.
    with (
        take_device(slots.locks, slots.devices[:1], holder="we"),
        take_device(slots.locks, slots.devices[1:2], holder="another step"),
    ):
        outcome = train(problem, engine, choose=choose)

    assert {name for (name,) in rows(engine, beside)} == {"cpu-2"}
    table = tried(engine, outcome.run_id)
    assert table["trial"].tolist() == list(range(6))
    assert set(table["status"]) == {"completed"}
    assert outcome.search is not None
    assert outcome.search["best_value"] == table["value"].min()
    # However it was found, it is found again and not searched for.
    assert train(problem, engine).run_id == outcome.run_id
    descriptor = take_lock(lock_path(slots.locks, slots.devices[2]))
    assert descriptor is not None
    os.close(descriptor)
