"""Scores against the library's own evaluation and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import utilsforecast.losses as losses
from hypothesis import given
from hypothesis import strategies as st
from utilsforecast.evaluation import evaluate

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import EvaluationError
from ts_forecast.evaluation import scoring
from ts_forecast.evaluation.scoring import (
    horizon_buckets,
    metric_names,
    score_model,
    seasonal_scales,
)
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline

ALL_METRICS = ["mae", "mse", "rmse", "mape", "smape", "mase", "rmsse", "bias"]


def make_pipeline(**changes: object) -> Pipeline:
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 2,
        "start": "2022-01-01",
        "models": ["SeasonalNaive"],
        "metrics": ALL_METRICS,
    }
    return parse_pipeline(content | changes, origin="test")


def make_rows(**columns: object) -> pa.Table:
    return pa.table(columns | {"horizon": pa.array(columns["horizon"], pa.int32())})


@given(st.integers(1, 500))
def test_horizon_buckets__cover_every_step_once(horizon: int) -> None:
    buckets = horizon_buckets(horizon)

    steps = [step for bucket in buckets for step in range(bucket.first, bucket.last + 1)]
    assert steps == list(range(1, horizon + 1))
    assert len(buckets) == min(4, horizon)


def test_score_model__by_hand() -> None:
    rows = make_rows(
        unique_id=["b", "a", "a", "a"],
        horizon=[1, 1, 2, 2],
        predicted_value=[5.0, 11.0, 18.0, 99.0],
        actual_value=[4.0, 10.0, 20.0, None],
    )
    scales = pd.DataFrame({"absolute": [2.0], "squared": [4.0]}, index=["a"])

    scores = score_model(rows, make_pipeline(), scales).set_index(["unique_id", "horizon_bucket"])

    assert list(scores.index) == [("a", "all"), ("a", "1"), ("a", "2"), ("b", "all"), ("b", "1")]
    series = scores.loc[("a", "all")]
    assert series["observations"] == 2
    expected = {
        "mae": 1.5,
        "mse": 2.5,
        "rmse": 2.5**0.5,
        "mape": 0.1,
        "smape": (1 / 21 + 2 / 38) / 2,
        "mase": 0.75,
        "rmsse": (2.5 / 4) ** 0.5,
        "bias": -0.5,
    }
    assert series[ALL_METRICS].to_dict() == pytest.approx(expected)
    assert scores.loc[("a", "2"), "bias"] == -2.0
    # Without a scale there is no scaled score.
    assert np.isnan(scores.loc[("b", "all"), "mase"])
    assert scores.loc[("b", "all"), "mae"] == 1.0


def test_score_model__equals_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small chunks, so that their borders are crossed.
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 50)
    pipeline = make_pipeline(horizon=8, levels=[50, 80], step=1)
    rng = np.random.default_rng(7)
    series, days, season = [f"s{i:02d}" for i in range(12)], 40, pipeline.season
    n = len(series) * days * 8
    quantiles = np.sort(rng.normal(10, 3, size=(n, 5)), axis=1)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(series, days * 8),
            "ds": np.tile(np.repeat(pd.date_range("2023-01-01", periods=days), 8), len(series)),
            "horizon": np.tile(np.arange(1, 9, dtype=np.int32), days * len(series)),
            "y": rng.normal(10, 3, size=n),
            "m": rng.normal(10, 3, size=n),
        }
    )
    names = ["m-lo-80", "m-lo-50", "m-median", "m-hi-50", "m-hi-80"]
    assert pipeline.quantiles == (0.1, 0.25, 0.5, 0.75, 0.9)
    frame[names] = quantiles
    history = pd.DataFrame(
        {
            "unique_id": np.repeat(series, 60),
            "ds": np.tile(pd.date_range("2022-11-01", periods=60), len(series)),
            "y": rng.normal(10, 3, size=60 * len(series)),
        }
    )
    rows = pa.table(
        {
            "unique_id": frame["unique_id"],
            "horizon": frame["horizon"],
            "predicted_value": frame["m"],
            "actual_value": frame["y"],
            "quantiles": pa.array(list(quantiles)),
        }
    ).take(pa.array(rng.permutation(n)))
    scales = seasonal_scales(Panel.from_frame(history, pipeline), season)

    ours = score_model(rows, pipeline, scales).set_index(["horizon_bucket", "unique_id"])

    def expected(part: pd.DataFrame) -> pd.DataFrame:
        functions = [getattr(losses, m) for m in ALL_METRICS if m not in ("mase", "rmsse")]
        simple = evaluate(part.drop(columns=["horizon", *names]), functions, models=["m"])
        wide = simple.pivot(index="unique_id", columns="metric", values="m")
        plain = part[["unique_id", "ds", "y", "m"]]
        for name in ("mase", "rmsse"):
            scaled = getattr(losses, name)(plain, ["m"], seasonality=season, train_df=history)
            wide[name] = scaled.set_index("unique_id")["m"]
        for level in (50, 80):
            covered = losses.coverage(part, ["m"], level).set_index("unique_id")["m"]
            wide[f"coverage_{level}"] = covered
        probabilities = np.array(pipeline.quantiles)
        for name in ("mqloss", "scaled_crps"):
            result = getattr(losses, name)(part, {"m": names}, probabilities)
            wide[name] = result.set_index("unique_id")["m"]
        return wide[list(metric_names(pipeline))]

    everything = expected(frame)
    pd.testing.assert_frame_equal(
        ours.loc["all", everything.columns], everything, check_names=False, rtol=1e-9
    )
    bucket = expected(frame[frame["horizon"].between(3, 4)])
    pd.testing.assert_frame_equal(
        ours.loc["3-4", bucket.columns], bucket, check_names=False, rtol=1e-9
    )


def test_score_model__undefined_scores_are_nan() -> None:
    pipeline = make_pipeline(horizon=1, levels=[80])
    rows = make_rows(
        unique_id=["a", "a"],
        horizon=[1, 1],
        predicted_value=[1.0, 2.0],
        actual_value=[0.0, 0.0],
        quantiles=pa.array([[0.0, 1.0, 2.0], [0.0, 2.0, 3.0]]),
    )
    scales = pd.DataFrame({"absolute": [0.0], "squared": [0.0]}, index=["a"])

    series = score_model(rows, pipeline, scales).iloc[0]

    undefined = {"mape", "mase", "rmsse", "scaled_crps"}
    assert {name for name in metric_names(pipeline) if np.isnan(series[name])} == undefined
    assert series["coverage_80"] == 1.0


def test_score_model__no_actuals_and_models_without_quantiles() -> None:
    pipeline = make_pipeline(levels=[80])
    empty = make_rows(
        unique_id=["a"], horizon=[1], predicted_value=[1.0], actual_value=pa.array([None], "f8")
    )
    assert list(score_model(empty, pipeline).columns) == [
        "unique_id",
        "horizon_bucket",
        "observations",
        *metric_names(pipeline),
    ]
    plain = make_rows(
        unique_id=["a"],
        horizon=[1],
        predicted_value=[1.0],
        actual_value=[3.0],
        quantiles=pa.array([None], pa.list_(pa.float64())),
    )

    scores = score_model(plain, pipeline)

    assert scores["mae"].tolist() == [2.0, 2.0]
    assert scores[["mqloss", "coverage_80"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("horizon", "quantiles", "problem"),
    [(3, [0.0, 1.0, 2.0], "horizons 3 to 3"), (1, [0.0, 1.0], "other quantiles than the 3")],
)
def test_score_model__slice_of_another_definition(
    horizon: int, quantiles: list[float], problem: str
) -> None:
    rows = make_rows(
        unique_id=["a"],
        horizon=[horizon],
        predicted_value=[1.0],
        actual_value=[3.0],
        quantiles=pa.array([quantiles]),
    )

    with pytest.raises(EvaluationError, match=problem):
        score_model(rows, make_pipeline(levels=[80]))


def test_seasonal_scales__ignore_missing_values_and_short_series() -> None:
    pipeline = make_pipeline(missing="ffill")
    days = pd.date_range("2022-01-01", periods=16)
    long = pd.DataFrame({"unique_id": "long", "ds": days, "y": np.arange(16.0) ** 2})
    short = pd.DataFrame({"unique_id": "short", "ds": days[:7], "y": 1.0})
    panel = Panel.from_frame(pd.concat([long.drop(index=9), short]), pipeline)

    scales = seasonal_scales(panel, 7)

    t = np.array([7, 8, 10, 11, 12, 13, 14, 15])
    difference = t**2.0 - (t - 7) ** 2
    assert scales.loc["long", "absolute"] == pytest.approx(difference.mean())
    assert scales.loc["long", "squared"] == pytest.approx((difference**2).mean())
    assert scales.loc["short"].isna().all()
