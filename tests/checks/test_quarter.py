"""Checks of a real quarter: models with records, published slices, stored scores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sqlalchemy import select, update

from tests.evaluation.conftest import make_pipeline
from ts_forecast.checks.accuracy import check_decay
from ts_forecast.checks.forecasts import rows_extent, slice_extent
from ts_forecast.checks.quarter import (
    check_dataset,
    check_features,
    check_model,
    check_scores,
    check_slice,
    refuse_wrong_slice,
    slice_history,
)
from ts_forecast.checks.result import CheckResult, RefusedSliceError
from ts_forecast.datasets.quarter import current_dataset
from ts_forecast.db.engine import transaction
from ts_forecast.evaluation.leaderboard import leaderboard
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.quarters import Quarter
from ts_forecast.tables.training import Model

if TYPE_CHECKING:
    from tests.evaluation.conftest import Problem


def by_name(results: list[CheckResult]) -> dict[str, CheckResult]:
    return {result.name: result for result in results}


def put_on_record(problem: Problem, fit_until: str, quarters: list[Quarter]) -> None:
    with transaction(problem.engine) as session:
        used = [current_dataset(session, problem.pipeline, quarter) for quarter in quarters]
        lineage = [{"dataset_id": row.dataset_id} for row in used if row is not None]
        session.execute(
            update(Model).values(
                model_config={"fit_until": fit_until}, metadata_={"datasets": lineage}
            )
        )


def slice_checks(problem: Problem, **limits: Any) -> dict[str, CheckResult]:
    pipeline = make_pipeline(checks=limits)
    with transaction(problem.engine) as session:
        return by_name(check_slice(session, pipeline, problem.quarter))


def test_check_dataset__stored_quarter__passes(problem: Problem) -> None:
    now = datetime(2023, 5, 1, tzinfo=UTC)
    with transaction(problem.engine) as session:
        results = check_dataset(session, problem.pipeline, problem.quarter, now=now)

    assert [(result.name, result.passed) for result in results] == [
        ("schema", True),
        ("duplicates", True),
        ("gaps", True),
        ("freshness", True),
    ]


def test_check_features__a_trend__drifts_and_the_first_quarter_is_not_compared(
    problem: Problem,
) -> None:
    with transaction(problem.engine) as session:
        (late,) = check_features(session, problem.pipeline, problem.quarter)
        (first,) = check_features(session, problem.pipeline, Quarter(2022, 3))

    assert (late.passed, first.passed) == (False, True)
    assert "not compared" in first.reason


@pytest.mark.parametrize(
    ("fit_until", "with_own", "reason"),
    [
        ("2022-12-31", False, "fitted until 2022-12-31"),
        ("2023-01-05", False, "first cutoff is 2022-12-"),
        ("2022-12-20", True, "fitted on demo/2023-Q1"),
    ],
)
def test_check_model__by_what_is_on_record(
    problem: Problem, fit_until: str, with_own: bool, reason: str
) -> None:
    plan = problem.pipeline.slice_plan(problem.quarter)
    cutoff = problem.pipeline.grid.timestamps(np.array([plan.fit_until]))[0]
    is_leak = with_own or fit_until > "2022-12-31"
    quarters = [Quarter(2022, 3), Quarter(2022, 4), *([problem.quarter] if with_own else [])]
    put_on_record(problem, min(fit_until, str(cutoff)) if not is_leak else fit_until, quarters)

    with transaction(problem.engine) as session:
        (result,) = check_model(session, problem.pipeline, problem.quarter, "Other")

    assert result.is_blocking == is_leak
    assert is_leak is False or reason in result.reason


def test_check_model__no_record__blocks(problem: Problem) -> None:
    with transaction(problem.engine) as session:
        (result,) = check_model(session, problem.pipeline, problem.quarter, "Other")

    assert result.is_blocking
    assert "no record" in result.reason


def test_check_slice__whole_and_sane__passes(problem: Problem) -> None:
    put_on_record(problem, "2022-12-20", [Quarter(2022, 4)])
    rows = problem.rows()
    problem.publish(rows)

    results = slice_checks(problem)

    assert all(result.passed for result in results.values()), results
    assert results["complete_slice"].figures["expected_rows"] == rows.num_rows


def test_check_slice__a_row_short__blocks_and_names_the_series(problem: Problem) -> None:
    problem.publish(problem.rows().slice(1))

    results = slice_checks(problem)

    assert results["complete_slice"].is_blocking
    assert results["complete_slice"].figures["missing_rows"] == 1
    assert "Other, 'a'" in results["complete_slice"].reason
    assert results["sane_values"].passed


def test_check_slice__exploding_forecast__blocks_unless_the_limit_is_wider(
    problem: Problem,
) -> None:
    rows = problem.rows()
    wild = pc.if_else(
        pc.equal(pa.array(np.arange(rows.num_rows)), 40), 1e6, rows["predicted_value"]
    )
    place = rows.schema.get_field_index("predicted_value")
    problem.publish(rows.set_column(place, "predicted_value", wild))

    results = slice_checks(problem)

    assert results["sane_values"].is_blocking
    assert "1e+06 for 'a'" in results["sane_values"].reason
    assert results["complete_slice"].passed
    assert slice_checks(problem, max_range_multiple=1e9)["sane_values"].passed
    assert set(slice_checks(problem, skip=["leakage", "sane_values"])) == {"complete_slice"}


def test_refuse_wrong_slice__rows_before_they_are_published__as_afterwards(
    problem: Problem,
) -> None:
    put_on_record(problem, "2022-12-20", [Quarter(2022, 4)])
    rows = problem.rows()
    names = {number: name for name, number in problem.models.items()}
    keys = ["model", "unique_id"]

    def inspect(table: pa.Table) -> None:
        with transaction(problem.engine) as session:
            models = session.scalars(select(Model)).all()
            panel = slice_history(session, problem.pipeline, problem.quarter)
            refuse_wrong_slice(problem.pipeline, problem.quarter)(session, table, models, panel)

    inspect(rows)
    problem.publish(rows)
    with transaction(problem.engine) as session:
        stored = slice_extent(session, problem.experiment_id, problem.quarter)
    before = rows_extent(rows, names).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(before, stored.sort_values(keys, ignore_index=True))

    with pytest.raises(RefusedSliceError, match="not published: complete_slice: 1 rows") as caught:
        inspect(rows.slice(1))
    assert {one.name: one.passed for one in caught.value.results} == {
        "leakage": True,
        "complete_slice": False,
        "sane_values": True,
    }
    put_on_record(problem, "2023-02-01", [Quarter(2022, 4)])
    with pytest.raises(RefusedSliceError, match="leakage: "):
        inspect(rows)


def test_check_scores__worse_than_the_baseline_and_too_narrow__warns(problem: Problem) -> None:
    problem.publish(problem.rows(error=3.0))
    score_quarter(problem.engine, problem.settings, problem.pipeline, problem.quarter)

    with transaction(problem.engine) as session:
        results = by_name(check_scores(session, problem.pipeline, problem.quarter))

    assert not any(result.is_blocking for result in results.values())
    assert results["beats_baseline"].figures == {"skill_Other": pytest.approx(-0.5)}
    assert "Other -0.500" in results["beats_baseline"].reason
    assert not results["interval_coverage"].passed
    assert "Other's 80 % holds 0.0%" in results["interval_coverage"].reason
    assert results["accuracy_decay"].passed
    assert "fewer than 2 quarters" in results["accuracy_decay"].reason


def test_check_scores__no_actuals__passes_with_a_note(problem: Problem) -> None:
    with transaction(problem.engine) as session:
        results = check_scores(session, problem.pipeline, problem.quarter)

    assert {result.name for result in results} == {
        "beats_baseline",
        "accuracy_decay",
        "interval_coverage",
    }
    assert all("nothing is scored" in result.reason for result in results)


def test_check_decay__against_the_median_of_the_quarters_before(problem: Problem) -> None:
    problem.publish(problem.rows())
    score_quarter(problem.engine, problem.settings, problem.pipeline, problem.quarter)
    with transaction(problem.engine) as session:
        board = leaderboard(session, problem.experiment_id)
        assert session.scalars(select(Model)).all()
    earlier = board.assign(mean=board["mean"] / 2)
    before = [earlier.assign(quarter=name) for name in ("2022-Q2", "2022-Q3", "2022-Q4")]
    previous = before[0].assign(mean=100.0)._append([before[1], before[2]])

    result = check_decay(board, previous, problem.pipeline, "mae")
    lenient = make_pipeline(checks={"max_decay": 2})

    assert (result.passed, result.is_blocking) == (False, False)
    assert result.figures["growth_Other"] == pytest.approx(1.0)
    assert "100% above" in result.reason
    assert check_decay(board, previous, lenient, "mae").passed
