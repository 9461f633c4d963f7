"""The validation window: where it lies, what a trial sees of it, and how it is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import EvaluationError, TrainingError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.search.validation import (
    Validation,
    plan_validation,
    validation_score,
)
from ts_forecast.training.search import Search, search_of
from ts_forecast.training.trainer import FittedModel, fit_model

HORIZON = 7


def problem(**changes: Any) -> tuple[Pipeline, Search]:
    search = changes.pop("search", {"metric": "mae"})
    content = {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": HORIZON,
        "start": "2024-01-01",
        "missing": "interpolate",
        "models": [{"model": "AutoNHITS", "search": search}, "SeasonalNaive"],
    }
    pipeline = parse_pipeline(content | changes, origin="shop.yaml")
    found = search_of(None, pipeline, pipeline.models[0])  # type: ignore[arg-type] — no stored space
    assert found is not None
    return pipeline, found


def frame(days: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    ds = pd.date_range("2024-01-01", periods=days)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "y": rng.normal(10 * (i + 1), size=days)})
        for i, name in enumerate(["a", "b"])
    ]
    return pd.concat(parts, ignore_index=True)


def planned(pipeline: Pipeline, search: Search, data: pd.DataFrame) -> Validation:
    panel = Panel.from_frame(data, pipeline)
    return plan_validation(pipeline, search, panel, Quarter(2024, 2), where="Pipeline shop")


def naive(pipeline: Pipeline, validation: Validation) -> FittedModel:
    return fit_model(pipeline, pipeline.models[1], validation.fit)


def test_plan_validation__window__is_the_last_and_a_trial_sees_nothing_of_it() -> None:
    pipeline, search = problem(search={"metric": "mae", "val_size": 14})
    validation = planned(pipeline, search, frame())
    history = validation.history

    cutoffs = np.unique(validation.issued.cutoff)
    last = int(history.last_observed.max())
    assert cutoffs[-1] + HORIZON <= last < cutoffs[-1] + HORIZON + pipeline.step
    assert int(validation.fit.last_observed.max()) == cutoffs[0]
    assert len(validation.issued) == 2 * len(cutoffs)


def test_plan_validation__values_in_the_window_changed__do_not_reach_the_fit() -> None:
    pipeline, search = problem()
    data = frame()
    gap = (data["unique_id"] == "a") & data["ds"].between("2024-02-17", "2024-02-25")
    data = data[~gap]  # over the cutoff: filling must not look past it
    first = planned(pipeline, search, data)
    other = data.copy()
    other.loc[other["ds"] > first.fit.ds.max(), "y"] += 1000

    second = planned(pipeline, search, other)

    assert str(first.fit.ds.max())[:10] == "2024-02-18"
    assert first.fit.content_hash() == second.fit.content_hash()
    assert first.history.content_hash() != second.history.content_hash()


@pytest.mark.parametrize("metric", ["mae", "rmse", "mase"])
def test_validation_score__seasonal_naive__is_what_pandas_says(metric: str) -> None:
    pipeline, search = problem(search={"metric": metric, "val_size": 21})
    data = frame()
    data = data[~((data["unique_id"] == "b") & (data["ds"] == "2024-02-14"))]
    validation = planned(pipeline, search, data)

    score = validation_score(naive(pipeline, validation), pipeline, search, validation)

    wide = data.pivot(index="ds", columns="unique_id", values="y")
    cutoffs = validation.history.grid.timestamps(np.unique(validation.issued.cutoff))
    assert [str(cutoff.date()) for cutoff in cutoffs] == ["2024-02-11", "2024-02-18"]
    # A missing value is not scored; the forecast a week later is of the filled one.
    naively = wide.interpolate().shift(7)
    day = pd.Timedelta("1D")
    errors = pd.concat((wide - naively).loc[c + day : c + 7 * day] for c in cutoffs)
    expected = {
        "mae": errors.abs().mean(),
        "rmse": errors.pow(2).mean().pow(0.5),
        "mase": errors.abs().mean() / wide.loc[: cutoffs[0]].diff(7).abs().mean(),
    }[metric]
    assert errors.isna().sum().tolist() == [0, 1]
    assert score == pytest.approx(expected.mean())


def test_validation_score__with_levels__is_the_pinball_loss() -> None:
    pipeline, search = problem(levels=[80], search={})
    validation = planned(pipeline, search, frame())
    model = naive(pipeline, validation)

    score = validation_score(model, pipeline, search, validation)

    assert search.metric == "mqloss"
    panel, issued = validation.history, validation.issued
    targets = issued.cutoff[:, None] + np.arange(1, HORIZON + 1)
    actual = panel.y[panel.rows_at(issued.series[:, None], targets)][:, :, None]
    error = actual - forecast_pairs(model, pipeline, panel, issued)
    share = np.array([0.1, 0.5, 0.9])
    assert score == pytest.approx(np.maximum(share * error, (share - 1) * error).mean())


def test_validation_score__series_that_begins_in_the_window__is_not_scored() -> None:
    pipeline, search = problem(step=1, min_history=1, search={"metric": "mae", "val_size": 14})
    new = pd.DataFrame({"unique_id": "new", "ds": pd.date_range("2024-02-18", "2024-02-29")})

    validation = planned(pipeline, search, pd.concat([frame(), new.assign(y=1e6)]))

    assert {validation.history.unique_ids[i] for i in validation.issued.series} == {"a", "b"}


@pytest.mark.parametrize(
    ("days", "val_size"), [(10, 7), (60, 56), (60, 70)], ids=["history", "season", "all of it"]
)
def test_plan_validation__too_little__says_what_to_change(days: int, val_size: int) -> None:
    pipeline, search = problem(min_history=8, search={"val_size": val_size})

    with pytest.raises(TrainingError, match=rf"8 observations before the last {val_size} steps"):
        planned(pipeline, search, frame(days))


def test_validation_score__metric_without_a_value__says_so() -> None:
    pipeline, search = problem(search={"metric": "mase"})
    data = frame()
    data["y"] = 3.0
    validation = planned(pipeline, search, data)

    with pytest.raises(EvaluationError, match="mase is not defined for any series"):
        validation_score(naive(pipeline, validation), pipeline, search, validation)
