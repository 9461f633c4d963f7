"""The distribution over series, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ts_forecast.evaluation.leaderboard import rank_series
from ts_forecast.evaluation.summary import SUMMARY_COLUMNS, summarize


def make_scores(**models: dict[str, list[float]]) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame({"model": model, "horizon_bucket": "all", **scores}).assign(
            unique_id=lambda part: [f"s{i}" for i in range(len(part))]
        )
        for model, scores in models.items()
    )


def test_summarize__distribution_and_skill() -> None:
    scores = make_scores(
        base={"mae": [4.0, 4.0, 8.0, 100.0], "bias": [1.0, 1.0, 1.0, 1.0]},
        net={"mae": [1.0, 2.0, 5.0, np.nan], "bias": [-1.0, 0.0, 1.0, 2.0]},
    )

    summary = summarize(scores, ["mae", "bias"], "base")

    assert tuple(summary.columns) == SUMMARY_COLUMNS
    assert list(summary["metric"]) == ["mae", "mae", "bias", "bias"]
    net = summary.set_index(["model", "metric"]).loc[("net", "mae")]
    assert net[["min", "q1", "median", "mean", "q3", "max", "series"]].tolist() == pytest.approx(
        [1.0, 1.5, 2.0, 8 / 3, 3.5, 5.0, 3]
    )
    assert net["std"] == pytest.approx(np.std([1.0, 2.0, 5.0], ddof=1))
    # Over the three series that both have: 1 - 8 / 16.
    assert net["skill"] == pytest.approx(0.5)
    skill = summary.set_index(["model", "metric"])["skill"]
    assert skill["base", "mae"] == 0.0
    assert skill.xs("bias", level="metric").isna().all()


def test_summarize__one_series_no_baseline() -> None:
    summary = summarize(make_scores(net={"mae": [3.0]}), ["mae"], None)

    row = summary.iloc[0]
    assert (row["min"], row["mean"], row["max"], row["series"]) == (3.0, 3.0, 3.0, 1)
    assert np.isnan(row["std"]) and np.isnan(row["skill"])


def test_summarize__metric_that_no_series_has_is_left_out() -> None:
    scores = make_scores(net={"mae": [3.0], "mape": [np.nan]}, base={"mae": [0.0], "mape": [0.1]})

    summary = summarize(scores, ["mae", "mape"], "base")

    assert list(zip(summary["model"], summary["metric"], strict=True)) == [
        ("base", "mae"),
        ("net", "mae"),
        ("base", "mape"),
    ]
    # A perfect baseline leaves nothing to be measured against.
    assert summary["skill"].isna().tolist() == [True, True, False]


def test_rank_series__worst_first_and_zero_demand_last() -> None:
    frame = pd.DataFrame(
        {
            "unique_id": ["big", "small", "zero", "unknown"],
            "model": "net",
            "predicted_value": [110.0, 2.0, 1.0, 5.0],
            "actual_value": [100.0, 1.0, 0.0, np.nan],
        }
    )

    ranked = rank_series(frame)

    assert list(ranked["unique_id"]) == ["small", "big", "zero"]
    assert ranked["nd"].tolist()[:2] == pytest.approx([1.0, 0.1])
    assert ranked["mae"].tolist() == pytest.approx([1.0, 10.0, 1.0])
    assert rank_series(frame.assign(actual_value=np.nan)).empty
