"""Searches for real: their runs and rows, the same again, nothing of the quarter, whatever fails."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, text

from tests.search.conftest import Searching
from tests.search.searches import QUARTER, SPACE, ingest, rows, train, tried
from ts_forecast.db.engine import transaction
from ts_forecast.errors import PipelineError, TrainingError
from ts_forecast.predictions.quarter import forecast_quarter, slice_is_current
from ts_forecast.search import trial
from ts_forecast.training.progress import loss_curves
from ts_forecast.training.quarter import train_quarter
from ts_forecast.training.search_spaces import deactivate_space, import_spaces, parse_spaces


def test_train_quarter__searched__trials_are_children_and_the_best_is_fitted(
    searching: Searching, engine: Engine
) -> None:
    problem = searching()

    outcome = train(problem, engine)

    children = rows(
        engine,
        "SELECT run_name, status, quarter_start::text, run_fingerprint, tags->>'kind', "
        "(SELECT jsonb_object_agg(param_key, param_value) FROM hyperparameters h "
        " WHERE h.run_id = r.run_id), "
        "(SELECT metric_value FROM metrics m WHERE m.run_id = r.run_id AND metric_name = 'mqloss' "
        " AND dataset_type = 'validation'), end_time >= start_time "
        "FROM runs r WHERE parent_run_id = :run ORDER BY run_id",
        run=outcome.run_id,
    )
    assert [row[0] for row in children] == [f"AutoMLP/trial-00{number}" for number in range(3)]
    assert {(row[1], row[2], row[4], row[7]) for row in children} == {
        ("completed", "2023-04-01", "trial", True)
    }
    assert len({row[3] for row in children}) == 3
    names = {"model", *SPACE}
    assert all(set(row[5]) == names and row[5]["model"] == "MLP" for row in children)
    # What was found is what is fitted, stored and reported.
    assert outcome.search is not None
    best = min(children, key=lambda row: row[6])
    assert outcome.search["best_value"] == best[6]
    assert children[outcome.search["best_trial"]] == best
    (model,) = rows(engine, "SELECT model_type, model_name, hyperparameters, run_id FROM models")
    assert model[:2] == ("MLP", "AutoMLP")
    assert {key: str(value) for key, value in model[2].items()} == {
        key: value for key, value in best[5].items() if key != "model"
    }
    own = "SELECT param_key, param_value FROM hyperparameters WHERE run_id = :run AND {}"
    told = dict(rows(engine, own.format("is_hyperparameter"), run=outcome.run_id))
    assert told == best[5]
    settings = dict(rows(engine, own.format("param_category = 'search'"), run=outcome.run_id))
    assert settings["search.trials"] == "3"
    assert settings["search.val_size"] == "14"
    with transaction(engine) as session:
        # The best trial's value is no point of a loss curve.
        assert set(loss_curves(session, outcome.run_id)["name"]) == {"train_loss"}
    train_quarter(engine, problem.settings, problem.pipeline, problem.pipeline.models[1], QUARTER)
    assert forecast_quarter(engine, problem.settings, problem.pipeline, QUARTER).rows > 0
    with transaction(engine) as session:
        assert slice_is_current(session, problem.pipeline, QUARTER)
    assert train(problem, engine).reused


def test_train_quarter__quarter_changed_and_search_forced__trials_and_weights_do_not_move(
    searching: Searching, engine: Engine
) -> None:
    """Determinism and leakage at once: everything from the quarter on is another world."""
    problem = searching(val_size=28)
    first = train(problem, engine)
    future = problem.frame.copy()
    is_later = pd.to_datetime(future["ds"]) >= pd.Timestamp(QUARTER.start)
    future.loc[is_later, "y"] = future.loc[is_later, "y"] * -100 + 12345
    future.loc[is_later, "promotion"] = 1 - future.loc[is_later, "promotion"]
    problem.write(future)
    ingest(problem, engine)

    assert train(problem, engine).reused
    second = train(problem, engine, force=True)

    assert second.run_id != first.run_id
    pd.testing.assert_frame_equal(tried(engine, first.run_id), tried(engine, second.run_id))
    assert second.search == first.search
    hashes = rows(engine, "SELECT metadata->>'sha256' FROM models")
    assert len(hashes) == 2 and len(set(hashes)) == 1


def test_train_quarter__end_of_the_history_changed__trials_are_measured_anew(
    searching: Searching, engine: Engine
) -> None:
    """The counterpart: what trials are measured on is there, just before the limit."""
    problem = searching()
    first = train(problem, engine)
    changed = problem.frame.copy()
    is_last = pd.to_datetime(changed["ds"]).between("2023-03-06", "2023-03-19")
    changed.loc[is_last, "y"] += 100
    problem.write(changed)
    ingest(problem, engine)

    second = train(problem, engine)

    before, after = tried(engine, first.run_id), tried(engine, second.run_id)
    # The first combinations are drawn before any value is known.
    assert (before["learning_rate"] == after["learning_rate"]).all()
    assert (before["value"] != after["value"]).all()


def test_train_quarter__killed_search__finds_its_trials_again(
    searching: Searching, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = searching()
    fits: list[str] = []
    really = trial.fit_model

    def interrupted(*arguments: Any) -> Any:
        fits.append("begun")
        if len(fits) == 3:
            raise KeyboardInterrupt
        return really(*arguments)

    monkeypatch.setattr(trial, "fit_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(problem, engine)
    left = rows(engine, "SELECT parent_run_id IS NULL, status FROM runs ORDER BY run_id")
    assert left == [(True, "killed"), (False, "completed"), (False, "completed"), (False, "killed")]
    assert rows(
        engine,
        "SELECT count(*) FROM hyperparameters JOIN runs USING (run_id) WHERE status = 'killed'",
    ) == [(6,)]

    # As kill -9 leaves them.
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE runs SET status = 'running', end_time = NULL WHERE status = 'killed'")
        )

    resumed = train(problem, engine)

    assert len(fits) == 4
    assert rows(engine, "SELECT status, count(*) FROM runs GROUP BY 1 ORDER BY 1") == [
        ("completed", 6),
        ("killed", 2),
    ]
    again = train(problem, engine, force=True)
    pd.testing.assert_frame_equal(tried(engine, resumed.run_id), tried(engine, again.run_id))
    # More trials: those that are on record are not fitted again.
    fits.clear()
    more = train(searching(trials=4), engine)
    assert len(fits) == 1
    assert tried(engine, more.run_id)["value"][:3].tolist() == (
        tried(engine, resumed.run_id)["value"].tolist()
    )


def test_train_quarter__some_trials_fail__the_best_of_the_others_is_taken(
    searching: Searching, engine: Engine
) -> None:
    space = {"scaler_type": {"values": ["standard", "wrong"]}, "max_steps": 2}
    problem = searching(space=space, trials=6)

    outcome = train(problem, engine)

    table = tried(engine, outcome.run_id)
    # Two combinations: one that comes again is not tried again.
    assert sorted(zip(table["scaler_type"], table["status"], strict=True)) == [
        ("standard", "completed"),
        ("wrong", "failed"),
    ]
    failed = table[table["status"] == "failed"].iloc[0]
    assert "wrong" in failed["error"] and pd.isna(failed["value"])
    assert rows(engine, "SELECT hyperparameters->>'scaler_type' FROM models") == [("standard",)]


def test_train_quarter__all_trials_fail__says_why(searching: Searching, engine: Engine) -> None:
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2}, "scaler_type": "wrong"}
    problem = searching(space=space, trials=2)

    with pytest.raises(TrainingError, match=r"model AutoMLP: all 2 trials failed.*wrong"):
        train(problem, engine)

    assert rows(engine, "SELECT status, count(*) FROM runs GROUP BY 1") == [("failed", 3)]
    assert rows(engine, "SELECT count(*) FROM models") == [(0,)]
    # Whoever tries again, with more memory say, is not told what failed before.
    assert rows(engine, "SELECT count(*) FROM optuna.studies") == [(0,)]


def test_train_quarter__named_space__its_definition_decides_and_not_its_name(
    searching: Searching, engine: Engine
) -> None:
    def store(name: str, definition: dict[str, Any], model: str = "MLP") -> None:
        entries = parse_spaces({name: {"model": model, "space": definition}}, origin="spaces.yaml")
        with transaction(engine) as session:
            import_spaces(session, entries)

    store("small", SPACE)
    store("renamed", SPACE)
    problem = searching(space="small", trials=2)
    first = train(problem, engine)
    assert first.search is not None
    assert first.search["space_name"] == "small"

    assert train(searching(space="renamed", trials=2), engine).run_id == first.run_id
    assert train(searching(space=SPACE, trials=2), engine).run_id == first.run_id

    store("small", SPACE | {"max_steps": 2})
    edited = train(problem, engine)
    assert not edited.reused
    assert edited.fingerprint != first.fingerprint

    with transaction(engine) as session:
        deactivate_space(session, "small")
    with pytest.raises(PipelineError, match=r"AutoMLP: No active search space is called 'small'"):
        train(problem, engine)


def test_train_quarter__without_a_chooser__says_so(searching: Searching, engine: Engine) -> None:
    problem = searching()

    with pytest.raises(TrainingError, match="choose_parameters"):
        train_quarter(
            engine, problem.settings, problem.pipeline, problem.pipeline.models[0], QUARTER
        )
