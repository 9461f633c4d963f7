"""Scoring a published slice on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from sqlalchemy import func, select

from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db.engine import transaction
from ts_forecast.errors import ArtifactError, EvaluationError
from ts_forecast.evaluation.leaderboard import leaderboard, quarter_accuracy, worst_series
from ts_forecast.evaluation.quarter import ScoreOutcome, score_quarter
from ts_forecast.tables.evaluation import Metric, MetricSummary
from ts_forecast.tables.experiment import Run

if TYPE_CHECKING:
    from tests.evaluation.conftest import Problem

METRICS = 4 + 3  # of the pipeline; mqloss, scaled_crps and one coverage
BUCKETS = 1 + 4
SUMMARIES = 2 * METRICS * BUCKETS


def score(problem: Problem, **options: bool) -> ScoreOutcome:
    return score_quarter(
        problem.engine, problem.settings, problem.pipeline, problem.quarter, **options
    )


def standing(problem: Problem) -> list[int]:
    with transaction(problem.engine) as session:
        runs = select(Run.run_id).where(
            Run.tags["kind"].astext == "evaluate", Run.deleted_at.is_(None)
        )
        return list(session.scalars(runs))


def test_score_quarter__writes_metrics_summaries_and_file(problem: Problem) -> None:
    predict_run = problem.publish(problem.rows())

    outcome = score(problem)

    assert (outcome.reused, outcome.summaries, outcome.metrics) == (False, SUMMARIES, SUMMARIES)
    assert outcome.series == len(problem.series)
    with transaction(problem.engine) as session:
        accuracy = quarter_accuracy(session, outcome.run_id).set_index(
            ["metric", "model", "horizon_bucket"]
        )
        assert session.get_one(Run, outcome.run_id).parent_run_id == predict_run
        metric = session.execute(
            select(Metric).where(
                Metric.metric_name == "mae",
                Metric.model_id == problem.models["Other"],
                Metric.evaluation_context == "2023-Q1/all",
            )
        ).scalar_one()
        assert (metric.dataset_type, metric.metric_step) == ("test", 0)
        assert metric.metric_value == pytest.approx(1.0)
    mae = accuracy.loc[("mae", "Other", "all")]
    assert (mae["mean"], mae["series"], mae["skill"]) == pytest.approx((1.0, 3, 0.5))
    assert accuracy.loc[("mae", "SeasonalNaive", "7"), "mean"] == pytest.approx(2.0)
    assert pd.isna(accuracy.loc[("bias", "Other", "all"), "skill"])
    # |1.5 - 1| away from the truth is inside, |1.5 - 2| outside.
    assert accuracy.loc[("coverage_80", "Other", "all"), "mean"] == 1.0
    assert accuracy.loc[("coverage_80", "SeasonalNaive", "all"), "mean"] == 0.0
    # Seasonal differences are 7, 14 and 21 by construction.
    mase = accuracy.loc[("mase", "Other", "all")]
    assert (mase["min"], mase["median"], mase["max"]) == pytest.approx((1 / 21, 1 / 14, 1 / 7))
    scores = pd.read_parquet(outcome.path)
    assert len(scores) == 2 * len(problem.series) * BUCKETS
    assert outcome.path.is_relative_to(problem.settings.output_dir / "reports" / "demo")


def test_score_quarter__scores_a_slice_once(problem: Problem) -> None:
    problem.publish(problem.rows())
    first = score(problem)

    second = score(problem)

    assert second.reused
    assert (second.run_id, second.path) == (first.run_id, first.path)
    with transaction(problem.engine) as session:
        assert session.scalar(select(func.count()).select_from(MetricSummary)) == SUMMARIES


def test_score_quarter__force_leaves_one_standing_run(problem: Problem) -> None:
    problem.publish(problem.rows())
    first = score(problem)

    again = score(problem, force=True)

    assert not again.reused
    assert standing(problem) == [again.run_id] != [first.run_id]
    assert again.path == first.path


def test_score_quarter__republished_slice_supersedes_older_scores(problem: Problem) -> None:
    problem.publish(problem.rows())
    score(problem)
    problem.publish(problem.rows(error=3.0), "restated")

    outcome = score(problem)

    assert not outcome.reused
    assert standing(problem) == [outcome.run_id]
    with transaction(problem.engine) as session:
        board = leaderboard(session, problem.experiment_id)
    assert list(board["model"]) == ["SeasonalNaive", "Other"]
    assert list(board["mean"]) == pytest.approx([2.0, 3.0])
    assert list(board["skill"]) == pytest.approx([0.0, -0.5])
    # Back to the first version: its run was superseded, so it is scored again.
    problem.publish(problem.rows(), "first again")
    assert not score(problem).reused


def test_score_quarter__no_actuals_yet(problem: Problem) -> None:
    problem.publish(problem.rows())
    score(problem)
    problem.publish(problem.rows(with_actuals=False), "live")

    outcome = score(problem)

    assert (outcome.run_id, outcome.summaries, outcome.metrics) == (None, 0, 0)
    assert "no actual value" in outcome.note
    assert standing(problem) == []
    with transaction(problem.engine) as session:
        assert leaderboard(session, problem.experiment_id).empty


def test_score_quarter__no_slice(problem: Problem) -> None:
    with pytest.raises(EvaluationError, match="demo has no forecasts of 2023-Q1.*predictions"):
        score(problem)


def test_score_quarter__history_restated_before_the_quarter_scores_again(problem: Problem) -> None:
    problem.publish(problem.rows())
    first = score(problem)

    changed = problem.history.copy()
    changed.loc[changed["ds"] == "2022-11-11", "y"] += 50
    changed.to_csv(problem.settings.data_dir / "demo.csv", index=False)
    ingest_quarters(
        problem.engine,
        problem.settings,
        problem.pipeline,
        list(problem.pipeline.window(problem.quarter)),
    )

    second = score(problem)

    assert not second.reused
    assert standing(problem) == [second.run_id] != [first.run_id]


def test_leaderboard__chosen_quarters_and_metric(problem: Problem) -> None:
    problem.publish(problem.rows())
    score(problem)

    with transaction(problem.engine) as session:
        board = leaderboard(session, problem.experiment_id, [problem.quarter], "rmse")
        none = leaderboard(session, problem.experiment_id, [problem.quarter.shift(1)])

    assert list(board["quarter"]) == ["2023-Q1", "2023-Q1"]
    assert list(board["model"]) == ["Other", "SeasonalNaive"]
    assert none.empty


def test_worst_series__largest_error_first(problem: Problem) -> None:
    problem.publish(problem.rows())
    outcome = score(problem)

    with transaction(problem.engine) as session:
        worst = worst_series(
            session, problem.experiment_id, problem.quarter, metric="mase", model="Other", limit=2
        )
        with pytest.raises(EvaluationError, match="Metrics: mae"):
            worst_series(session, problem.experiment_id, problem.quarter, metric="wit")
        outcome.path.write_bytes(b"damage")
        with pytest.raises(ArtifactError, match=str(outcome.path)):
            worst_series(session, problem.experiment_id, problem.quarter)

    assert list(worst["unique_id"]) == ["a", "b"]
    assert list(worst["mase"]) == pytest.approx([1 / 7, 1 / 14])
