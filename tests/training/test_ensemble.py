"""Ensembles: weights of the past alone, forecasts that are their members' put together, rows as any model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, text

from tests.end_to_end.conftest import Problem
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db.engine import transaction
from ts_forecast.errors import PipelineError, TrainingError
from ts_forecast.evaluation.calibration import calibrate, calibration_cutoffs
from ts_forecast.evaluation.champion import choose_champion
from ts_forecast.evaluation.leaderboard import leaderboard
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.pipeline_model import ModelSpec
from ts_forecast.predictions.quarter import forecast_quarter, slice_is_current
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.tables.training import Model
from ts_forecast.training.ensemble import combine, train_ensemble
from ts_forecast.training.quarter import TrainingOutcome, train_quarter, training_history
from ts_forecast.training.trainer import FittedModel

MEMBERS = ["SeasonalNaive", "HistoricAverage", "Naive"]
BLENDS = {
    "Mean": "mean",
    "Median": "median",
    "Trimmed": "trimmed_mean",
    "Blend": "inverse_error",
}
MODELS: list[object] = [
    {"ensemble": "inverse_error", "of": MEMBERS, "name": "Blend"},
    *MEMBERS,
    {"ensemble": "mean", "of": MEMBERS, "name": "Mean"},
    {"ensemble": "median", "of": MEMBERS, "name": "Median"},
    {"ensemble": "trimmed_mean", "of": MEMBERS, "name": "Trimmed"},
]
FIRST, SECOND = Quarter(2023, 1), Quarter(2023, 2)
EQUAL = pytest.approx(1 / 3)


def train(engine: Engine, problem: Problem, quarter: Quarter) -> dict[str, TrainingOutcome]:
    specs = sorted(problem.pipeline.models, key=lambda spec: spec.ensemble is not None)
    where = (engine, problem.settings, problem.pipeline)
    return {
        spec.name: train_quarter(*where, spec, quarter, calibrate=calibrate)
        if spec.ensemble is None
        else train_ensemble(*where, spec, quarter)
        for spec in specs
    }


def errors_before(engine: Engine, problem: Problem, quarter: Quarter) -> pd.Series[float]:
    """MAE of naive members from the cutoffs before the quarter; fitting them is nothing."""
    pipeline = problem.pipeline
    with transaction(engine) as session:
        history = training_history(session, pipeline, quarter)
    cutoffs = calibration_cutoffs(pipeline, history, quarter)
    series = np.repeat(np.arange(history.n_series), len(cutoffs))
    issued = Issued(series, np.tile(cutoffs, history.n_series))
    targets = issued.cutoff[:, None] + np.arange(1, pipeline.horizon + 1)
    actual = history.y[history.rows_at(issued.series[:, None], targets)]
    errors = {}
    for name in MEMBERS:
        fitted = FittedModel(pipeline.model(name), None, {}, history.unique_ids)
        points = forecast_pairs(fitted, pipeline, history, issued)[:, :, 1]
        by_series = np.abs(points - actual).reshape(history.n_series, -1)
        errors[name] = np.nanmean(by_series, axis=1).mean()
    return pd.Series(errors)


def whole(engine: Engine, problem: Problem, quarter: Quarter) -> dict[str, TrainingOutcome]:
    """Train, forecast and score a quarter."""
    where = (engine, problem.settings, problem.pipeline)
    ingest_quarters(*where, [*problem.pipeline.window(quarter), quarter])
    outcomes = train(engine, problem, quarter)
    forecast_quarter(*where, quarter)
    score_quarter(*where, quarter)
    return outcomes


def rows(engine: Engine) -> pd.DataFrame:
    query = (
        "SELECT model_name, unique_id, prediction_date, horizon, predicted_value, quantiles "
        "FROM predictions JOIN models USING (model_id)"
    )
    with engine.connect() as connection:
        frame = pd.DataFrame([tuple(row) for row in connection.execute(text(query))])
    frame.columns = pd.Index(["model", "series", "ds", "h", "point", "quantiles"])
    return frame.set_index(["model", "series", "ds", "h"]).sort_index()


def test_ensemble__two_quarters__is_a_model_everywhere(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={}, champion={"quarters": 2})
    pipeline = problem.pipeline
    first = whole(engine, problem, FIRST)
    slice_ = rows(engine)
    second = whole(engine, problem, SECOND)

    # Forecasts: of each key the members' put together, and quantiles likewise.
    points = slice_["point"].unstack("model")
    members = points[MEMBERS].to_numpy()
    assert np.allclose(points["Mean"], members.mean(axis=1))
    share = pd.Series(first["Blend"].weights)[MEMBERS].to_numpy()
    assert np.allclose(points["Blend"], members @ share)
    for name in ("Median", "Trimmed"):
        # Of three the same.
        assert np.allclose(points[name], np.median(members, axis=1))
    quantiles = {
        name: np.stack(slice_.loc[name, "quantiles"].to_list()) for name in [*MEMBERS, *BLENDS]
    }
    stacked = np.stack([quantiles[name] for name in MEMBERS])
    assert np.allclose(quantiles["Mean"], stacked.mean(axis=0))
    assert np.allclose(quantiles["Median"], np.median(stacked, axis=0))
    assert (np.diff(quantiles["Blend"], axis=1) >= 0).all()

    # Weights: the inverse errors over the last quarter of what the members may see.
    for quarter, outcome in ((FIRST, first), (SECOND, second)):
        inverse = 1 / errors_before(engine, problem, quarter)
        assert outcome["Blend"].weights == pytest.approx((inverse / inverse.sum()).to_dict())
    with transaction(engine) as session:
        board = leaderboard(session, 1, [FIRST])
        scores = board.set_index("model")["mean"]
        assert set(scores.index) == {*MEMBERS, *BLENDS}
        assert slice_is_current(session, pipeline, SECOND)
        choice = choose_champion(session, pipeline, SECOND)
        assert choice.model == scores.idxmin()
        assert set(choice.scores["model"]) == {*MEMBERS, *BLENDS}

    # Scores are there by now and change nothing; the same ensemble is found.
    again = train(engine, problem, SECOND)
    assert all(outcome.reused for outcome in again.values())
    assert again["Blend"].fingerprint == second["Blend"].fingerprint
    with transaction(engine) as session:
        row = session.get_one(Model, second["Blend"].model_id)
        assert (row.framework, row.model_type) == ("ts_forecast", "Ensemble")
        assert row.metadata_ is not None
        sha = (session.get_one(Model, second["Naive"].model_id).metadata_ or {})["sha256"]
        assert row.metadata_["members"]["Naive"] == sha


def test_inverse_error__later_quarter_first__weights_and_forecasts_are_the_same(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    """In whatever order runs of a backfill come: nothing of one quarter rests on another's."""
    problem = make_problem(models=MODELS, exogenous={})
    second = whole(engine, problem, SECOND)
    alone = rows(engine)
    first = whole(engine, problem, FIRST)

    again = whole(engine, problem, SECOND)

    assert again["Blend"].reused
    assert again["Blend"].weights == second["Blend"].weights != first["Blend"].weights
    assert len(set(second["Blend"].weights.values())) == 3
    both = rows(engine)
    is_second = both.index.get_level_values("ds") >= pd.Timestamp(SECOND.start)
    pd.testing.assert_frame_equal(both[is_second], alone)


def test_inverse_error__restated__past_moves_the_weights_and_future_does_not(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={})
    first = whole(engine, problem, FIRST)["Blend"]
    for since, is_same in (("2023-01-01", True), ("2022-11-01", False)):
        frame = problem.frame.copy()
        is_restated = frame["ds"].between(since, "2023-03-31")
        frame.loc[is_restated, "y"] += np.arange(is_restated.sum()) % 7
        problem.write(frame)

        after = whole(engine, problem, FIRST)["Blend"]

        assert (after.weights == first.weights) is is_same
        assert after.reused is is_same


def test_ensemble__conformal_intervals__cover_where_put_together_quantiles_do_not(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    # Of a member of points alone there are no quantiles to put together.
    points = {"model": "WindowAverage", "parameters": {"window_size": 7}, "intervals": "model"}
    both: dict[str, object] = {"ensemble": "mean", "of": ["SeasonalNaive", "HistoricAverage"]}
    models = [
        points,
        *MEMBERS,
        {**both, "name": "Plain"},
        {**both, "name": "Calibrated", "intervals": "conformal"},
        {**both, "of": ["Naive", "WindowAverage"], "name": "OfPoints", "intervals": "conformal"},
    ]
    problem = make_problem(models=models, exogenous={})
    outcomes = whole(engine, problem, FIRST)
    slice_ = rows(engine)

    pd.testing.assert_series_equal(
        slice_.loc["Plain", "point"], slice_.loc["Calibrated", "point"], check_names=False
    )
    for name in ("Calibrated", "OfPoints"):
        quantiles = np.stack(slice_.loc[name, "quantiles"].to_list())
        assert (np.diff(quantiles, axis=1) >= 0).all()
        assert (outcomes[name].calibration or {})["scores"] > 100
    with transaction(engine) as session:
        coverage = leaderboard(session, 1, [FIRST], metric="coverage_80")
    measured = coverage.set_index("model")["mean"]
    assert measured["Calibrated"] == pytest.approx(0.8, abs=0.1)
    assert measured["OfPoints"] == pytest.approx(0.8, abs=0.15)
    assert abs(measured["Plain"] - 0.8) > abs(measured["Calibrated"] - 0.8)
    assert "WindowAverage" not in measured
    assert all(outcome.reused for outcome in train(engine, problem, FIRST).values())


def test_inverse_error__members_without_errors__weigh_the_same(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    early = Quarter(2022, 2)
    # A fortnight of history, and four weeks would be needed.
    problem = make_problem(models=MODELS, exogenous={}, start="2022-03-05")

    outcomes = whole(engine, problem, early)

    assert outcomes["Blend"].weights == dict.fromkeys(MEMBERS, EQUAL)


def test_train_ensemble__member_not_trained__says_which(
    engine: Engine, make_problem: Callable[..., Problem]
) -> None:
    problem = make_problem(models=MODELS, exogenous={})

    with pytest.raises(TrainingError, match="trained_models/SeasonalNaive for 2023-01-01"):
        train_ensemble(
            engine, problem.settings, problem.pipeline, problem.pipeline.model("Mean"), FIRST
        )


def test_combine__member_without_bounds__gives_the_median_and_no_bounds(
    make_problem: Callable[..., Problem],
) -> None:
    pipeline = make_problem(models=MODELS, exogenous={}).pipeline
    outputs = {name: np.array([[[1.0, 2.0, 3.0]]]) * (i + 1) for i, name in enumerate(MEMBERS)}
    outputs["Naive"][..., [0, 2]] = np.nan

    for name in ("Mean", "Median", "Trimmed"):
        combined = combine(pipeline.model(name), dict.fromkeys(MEMBERS, 1 / 3), outputs)
        assert np.isnan(combined[0, 0, [0, 2]]).all()
        assert combined[0, 0, 1] == pytest.approx(4.0)


def test_combine__trimmed_mean__leaves_out_another_member_at_every_step() -> None:
    spec = ModelSpec.model_validate(
        {"ensemble": "trimmed_mean", "of": ["A", "B", "C", "D"], "name": "Trimmed"}
    )
    steps = {"A": [9.0, 3.0], "B": [2.0, -50.0], "C": [4.0, 5.0], "D": [100.0, 4.0]}
    outputs = {name: np.array(values).reshape(1, 2, 1) for name, values in steps.items()}

    combined = combine(spec, dict.fromkeys(steps, 0.25), outputs)

    np.testing.assert_allclose(combined[0, :, 0], [6.5, 3.5])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"ensemble": "trimmed_mean", "of": ["Naive", "SeasonalNaive"]}, "at least three"),
        ({"ensemble": "mean", "of": ["Naive", "Gone"]}, "Gone is no model of this pipeline"),
        ({"ensemble": "mean", "of": ["Naive"]}, "at least two different models"),
        ({"ensemble": "mean", "of": ["Naive", "Naive"]}, "at least two different models"),
        ({"ensemble": "mean", "of": ["Naive", "Ensemble"]}, "Ensemble is no model"),
        ({"ensemble": "best", "of": ["Naive", "SeasonalNaive"]}, "ensemble: found 'best'"),
        ({"ensemble": "mean", "model": "NHITS", "of": ["Naive", "SeasonalNaive"]}, "no `model`"),
        (
            {"ensemble": "mean", "of": ["Naive", "SeasonalNaive"], "parameters": {"x": 1}},
            "nothing else",
        ),
        ({"model": "Ensemble"}, "unknown model 'Ensemble'"),
        ({"model": "WindowAverage", "of": ["Naive", "SeasonalNaive"]}, "of is of an ensemble"),
        ({"name": "Nothing"}, "model: this key is required"),
    ],
)
def test_pipeline__wrong_ensemble__is_refused(
    make_problem: Callable[..., Problem], entry: dict[str, object], words: str
) -> None:
    with pytest.raises(PipelineError, match=words):
        make_problem(models=["Naive", "SeasonalNaive", entry], exogenous={})
