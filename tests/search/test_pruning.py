"""Ending trials early: what is looked at leaves no trace, what is pruned says so."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine

from tests.search.conftest import Searching
from tests.search.searches import rows, train, tried
from tests.training.test_trainer import NHITS, panel, pipeline
from ts_forecast.errors import PrunedError
from ts_forecast.training.options import FitOptions
from ts_forecast.training.trainer import fit_model

SPACE: dict[str, Any] = {
    "max_steps": {"values": [10, 20]},
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "input_size": 14,
    "hidden_size": 8,
    "windows_batch_size": 32,
}


def test_fit_model__looked_at__ends_at_the_same_weights() -> None:
    pipe = pipeline(NHITS)
    data = panel(pipe)
    seen = []

    def look(step: int, model: Any) -> None:
        import torch

        torch.rand(3)
        seen.append((step, sum(float(w.detach().double().sum()) for w in model.parameters())))

    plain = fit_model(pipe, pipe.models[0], data)
    looked = fit_model(pipe, pipe.models[0], data, FitOptions(look=look, look_every=2))

    # Not at 6, the last.
    assert [step for step, _ in seen] == [2, 4]
    assert seen[0][1] != seen[1][1]
    for name, weight in plain.model.state_dict().items():
        assert (weight == looked.model.state_dict()[name]).all(), name
    assert plain.curves == looked.curves


def test_fit_model__looker_raises__ends_with_its_error() -> None:
    pipe = pipeline(NHITS)

    def look(step: int, model: Any) -> None:
        raise PrunedError(f"at {step}")

    with pytest.raises(PrunedError, match="at 3"):
        fit_model(pipe, pipe.models[0], panel(pipe), FitOptions(look=look, look_every=3))


def test_train_quarter__pruned_trials__say_so_and_are_the_same_again(
    searching: Searching, engine: Engine
) -> None:
    problem = searching(space=SPACE, trials=8)

    outcome = train(problem, engine)

    table = tried(engine, outcome.run_id)
    assert len(table) == 8
    pruned = table[table["status"] == "pruned"]
    assert 0 < len(pruned) < 5, "the first five are never pruned"
    assert pruned["value"].isna().all()
    assert (pruned["pruned_at"] < pruned["max_steps"]).all()
    told = rows(
        engine,
        "SELECT r.status, r.error_message, max(m.metric_step), (r.metadata->>'pruned_at')::int, "
        "r.end_time IS NOT NULL FROM runs r JOIN metrics m USING (run_id) "
        "WHERE r.tags->>'pruned' = 'true' AND metric_name = 'mqloss_by_step' GROUP BY r.run_id",
    )
    assert len(told) == len(pruned)
    for status, message, last, at, has_ended in told:
        assert (status, last, has_ended) == ("killed", at, True)
        assert f"Pruned at step {at}: mqloss" in message
    # A trial that ran to its end was looked at on the way, on the grid of all.
    steps = rows(
        engine,
        "SELECT DISTINCT metric_step FROM metrics JOIN runs USING (run_id) "
        "WHERE metric_name = 'mqloss_by_step' AND status = 'completed' ORDER BY 1",
    )
    assert [step for (step,) in steps] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert outcome.search is not None
    assert outcome.search["best_value"] == table["value"].min()

    again = train(problem, engine, force=True)

    pd.testing.assert_frame_equal(table, tried(engine, again.run_id))


def test_train_quarter__without_a_pruner__all_run_to_their_end(
    searching: Searching, engine: Engine
) -> None:
    problem = searching(space=SPACE, trials=7, pruner="none")

    outcome = train(problem, engine)

    assert set(tried(engine, outcome.run_id)["status"]) == {"completed"}
    assert rows(engine, "SELECT count(*) FROM metrics WHERE metric_name LIKE '%by_step'") == [(0,)]
