"""LEAR, LightGBM and DNN: all cutoffs at once equal one at a time, and see no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.predictions.shop import QUARTER, fitted_model, history, pipeline
from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import PipelineError, TrainingError
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter

TREES = {"n_estimators": 5, "min_child_samples": 5}
NETS = {"n_estimators": 2, "max_steps": 20, "hidden_sizes": [8], "level": 2}
MODELS = [
    pytest.param({"model": "LEAR", "transform": "asinh"}, id="LEAR"),
    pytest.param({"model": "LEAR", "parameters": {"windows": [30, 60]}}, id="LEAR-windows"),
    pytest.param({"model": "LEAR", "parameters": {"level": 2}}, id="LEAR-level"),
    pytest.param({"model": "LEAR", "parameters": {"refit": 3}}, id="LEAR-refit"),
    pytest.param({"model": "LightGBM", "transform": "robust", "parameters": TREES}, id="LightGBM"),
    pytest.param(
        {"model": "LightGBM", "parameters": {**TREES, "differences": [1]}},
        id="LightGBM-differences",
    ),
    pytest.param({"model": "LightGBM", "parameters": {**TREES, "refit": 3}}, id="LightGBM-refit"),
    pytest.param({"model": "DNN", "transform": "robust", "parameters": NETS}, id="DNN"),
    # Of more cutoffs than it has steps for.
    pytest.param(
        {"model": "DNN", "parameters": {**NETS, "refit": 3, "batch_size": 2}}, id="DNN-refit"
    ),
    pytest.param(
        {
            "model": "NHITS",
            "transform": "asinh",
            "parameters": {"max_steps": 3, "input_size": 14, "scaler_type": "identity"},
        },
        id="NHITS-asinh",
    ),
    pytest.param({"model": "SeasonalNaive", "transform": "asinh"}, id="SeasonalNaive-asinh"),
]


@pytest.mark.parametrize("model", MODELS)
def test_forecast_pairs__all_cutoffs__equal_one_with_what_it_knew(model: dict[str, Any]) -> None:
    """Alone, a cutoff is given nothing after it but the columns that are known ahead."""
    pipe, frame = pipeline(model), history()
    fitted = fitted_model(pipe, frame)
    panel = Panel.from_frame(frame, pipe)
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)

    together = forecast_pairs(fitted, pipe, panel, issued)

    assert {panel.unique_ids[i] for i in issued.series} == {"a", "b", "late"}
    assert together.shape == (len(issued), 10, 3) and np.isfinite(together[:, :, 1]).all()
    for cutoff in np.unique(issued.cutoff):
        at, end = pipe.grid.timestamps(np.array([cutoff, cutoff + pipe.horizon]))
        known = frame[frame["ds"] <= end].copy()
        known.loc[known["ds"] > at, ["y", "visitors"]] = np.nan
        alone = Panel.from_frame(known, pipe)
        mine = np.flatnonzero(issued.cutoff == cutoff)
        places = [alone.unique_ids.index(panel.unique_ids[i]) for i in issued.series[mine]]
        one = Issued(np.array(places), issued.cutoff[mine])
        np.testing.assert_allclose(
            together[mine], forecast_pairs(fitted, pipe, alone, one), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("model", MODELS[:8])
def test_forecast_pairs__another_season__another_forecast(model: dict[str, Any]) -> None:
    """The tests of leakage would also hold for a model that reads nothing at all."""
    pipe, frame = pipeline(model), history()
    fitted = fitted_model(pipe, frame)
    issued = Panel.from_frame(frame, pipe).issued(pipe.slice_plan(QUARTER), pipe)
    changes = {}
    for column in ("y", "promotion"):
        other = frame.assign(**{column: frame[column] * 3 + 40})
        changes[column] = forecast_pairs(fitted, pipe, Panel.from_frame(other, pipe), issued)

    before = forecast_pairs(fitted, pipe, Panel.from_frame(frame, pipe), issued)

    assert not np.allclose(before[:, :, 1], changes["y"][:, :, 1])
    # Trees this small need not have split on a column of noise.
    if fitted.spec.model != "LightGBM":
        assert not np.allclose(before[:, :, 1], changes["promotion"][:, :, 1])


def test_lear__a_law_of_lags_and_columns__is_found() -> None:
    rng = np.random.default_rng(0)
    dates = pd.date_range("2015-01-01", "2015-12-31")
    promotion, visitors = rng.normal(size=(2, len(dates)))
    y = np.zeros(len(dates))
    for day in range(7, len(dates)):
        y[day] = 0.6 * y[day - 7] + 3 * promotion[day] + 0.5 * (dates[day].weekday() == 4)
    frame = pd.DataFrame(
        {"unique_id": "a", "ds": dates, "y": y, "promotion": promotion, "visitors": visitors}
    )
    pipe = pipeline("LEAR", levels=[], horizon=7)
    panel = Panel.from_frame(frame, pipe)
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)

    outputs = forecast_pairs(fitted_model(pipe, frame), pipe, panel, issued)

    rows = panel.rows_at(issued.series[:, None], issued.cutoff[:, None] + np.arange(1, 8))
    assert np.abs(outputs[:, :, 0] - panel.y[rows]).mean() < 0.1 * np.abs(y).mean()


@pytest.mark.parametrize(
    "model",
    [
        {"model": "LEAR", "parameters": {"level": 1}},
        {"model": "DNN", "parameters": {**NETS, "level": 1}},
    ],
    ids=["LEAR", "DNN"],
)
def test_regressions__measured_from_a_level__follow_a_shift_that_they_never_saw(
    model: dict[str, Any],
) -> None:
    pipe, frame = pipeline(model, levels=[]), history()
    fitted = fitted_model(pipe, frame)
    issued = Panel.from_frame(frame, pipe).issued(pipe.slice_plan(QUARTER), pipe)

    before, after = (
        forecast_pairs(
            fitted, pipe, Panel.from_frame(frame.assign(y=frame["y"] + up), pipe), issued
        )
        for up in (0.0, 1e4)
    )

    np.testing.assert_allclose(after - before, 1e4, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "year"),
    [
        ({"model": "LEAR", "parameters": {"windows": [30], "lags": [1]}}, 2015),
        # Before the grid's origin its indices are negative.
        ({"model": "LEAR", "parameters": {"windows": [30], "lags": [1]}}, 1990),
        (
            {
                "model": "LightGBM",
                "parameters": {"lags": [1], "n_estimators": 200, "min_child_samples": 5},
            },
            2015,
        ),
        (
            {
                "model": "DNN",
                "parameters": {
                    "lags": [1],
                    "exogenous_lags": [],
                    "level": 0,
                    "learning_rate": 0.01,
                    "n_estimators": 1,
                    "max_steps": 200,
                },
            },
            2015,
        ),
    ],
    ids=["LEAR", "LEAR-1990", "LightGBM", "DNN"],
)
def test_forecast_pairs__refit__learns_within_the_quarter_what_has_changed(
    model: dict[str, Any], year: int
) -> None:
    rng = np.random.default_rng(0)
    dates = pd.date_range(f"{year}-01-01", f"{year}-12-31")
    is_new = dates >= f"{year}-10-01"
    # Trees know nothing of values that they have not seen, and are slow to unlearn those they have.
    promotion = rng.normal(size=len(dates)) + 10 * is_new
    y = np.where(is_new, -3.0, 3.0) * promotion + 0.1 * rng.normal(size=len(dates))
    frame = pd.DataFrame({"unique_id": "a", "ds": dates, "y": y, "promotion": promotion})
    errors = {}
    for refit in (0, 7):
        own = {"levels": [], "horizon": 7, "step": 1, "exogenous": {"future": ["promotion"]}}
        anew = {**model, "parameters": {**model["parameters"], "refit": refit}}
        pipe, quarter = pipeline(anew, start=f"{year}-01-01", **own), Quarter(year, 4)
        panel = Panel.from_frame(frame, pipe)
        issued = panel.issued(pipe.slice_plan(quarter), pipe)
        outputs = forecast_pairs(fitted_model(pipe, frame, quarter), pipe, panel, issued)
        rows = panel.rows_at(issued.series[:, None], issued.cutoff[:, None] + np.arange(1, 8))
        error = np.where(rows >= 0, np.abs(outputs[:, :, 0] - panel.y[rows]), np.nan)
        of_first_week = issued.cutoff < issued.cutoff.min() + 7
        errors[refit] = np.nanmean(error[of_first_week]), np.nanmean(error[-40:])

    (early, late), (early_anew, late_anew) = errors[0], errors[7]

    # Nothing of the change was known in the first days.
    assert early_anew > 2 and early > 2 and late > 2
    assert late_anew < late / 4


@pytest.mark.parametrize("model", ["LEAR", "DNN"])
def test_regressions__a_column_out_of_this_world__moves_forecasts_by_no_more_than_it_ever_moved(
    model: str,
) -> None:
    """In asinh a linear forecast of a mistyped input would be infinite, and the slice refused."""
    pipe, frame = pipeline({"model": model, "transform": "asinh"}), history()
    fitted = fitted_model(pipe, frame)
    mistyped = frame.assign(promotion=frame["promotion"].where(frame["ds"] != "2015-12-01", 1e9))
    panel = Panel.from_frame(mistyped, pipe)

    outputs = forecast_pairs(fitted, pipe, panel, panel.issued(pipe.slice_plan(QUARTER), pipe))

    assert np.abs(outputs[:, :, 1]).max() < 1e4


@pytest.mark.parametrize(
    "model",
    [
        {"model": "LightGBM", "parameters": {"n_estimators": 60, "learning_rate": 0.1}},
        {
            "model": "DNN",
            "parameters": {
                "lags": [1],
                "exogenous_lags": [],
                "level": 0,
                "hidden_sizes": [16],
                "max_steps": 300,
                "learning_rate": 0.01,
            },
        },
    ],
    ids=["LightGBM", "DNN"],
)
def test_regressions__levels_and_later_steps__are_read(model: dict[str, Any]) -> None:
    """A step's forecast follows its own date's column: mlforecast's direct strategy would not."""
    rng = np.random.default_rng(0)
    dates = pd.date_range("2015-01-01", "2015-12-31")
    promotion = rng.normal(size=len(dates))
    frame = pd.DataFrame(
        {
            "unique_id": "a",
            "ds": dates,
            "y": 5 * np.sign(promotion) + rng.normal(size=len(dates)),
            "promotion": promotion,
            "visitors": 0.0,
        }
    )
    pipe = pipeline(model, step=1)
    panel = Panel.from_frame(frame, pipe)
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)

    outputs = forecast_pairs(fitted_model(pipe, frame), pipe, panel, issued)

    rows = panel.rows_at(issued.series[:, None], issued.cutoff[:, None] + np.arange(1, 11))
    actual, middle = panel.y[rows], outputs[:, :, 1]
    assert (np.sign(actual) == np.sign(middle)).mean(axis=0).min() > 0.75
    inside = (actual >= outputs[:, :, 0]) & (actual <= outputs[:, :, 2])
    assert 0.5 < inside.mean() < 0.95


@pytest.mark.parametrize(
    ("rate", "since", "message"),
    [
        (1e30, "2015-01-01", "model DNN: the loss is not finite at step"),
        (1e-3, "2015-09-10", "model DNN: no series is long enough"),
    ],
)
def test_dnn__nothing_to_learn__says_so(rate: float, since: str, message: str) -> None:
    pipe = pipeline({"model": "DNN", "parameters": {**NETS, "learning_rate": rate}})
    frame = history()

    with pytest.raises(TrainingError, match=message):
        fitted_model(pipe, frame[frame["ds"] >= since])


@pytest.mark.parametrize(
    "model",
    [
        {
            "model": "LightGBM",
            "parameters": TREES
            | {"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5},
        },
        {"model": "DNN", "parameters": NETS},
    ],
    ids=["LightGBM", "DNN"],
)
def test_fit_model__twice__same_forecasts(model: dict[str, Any]) -> None:
    pipe, frame = pipeline(model), history()
    panel = Panel.from_frame(frame, pipe)
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)

    one, two = (forecast_pairs(fitted_model(pipe, frame), pipe, panel, issued) for _ in "ab")

    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"model": "LEAR", "parameters": {"lags": [0]}}, "lags: found \\[0\\]"),
        ({"model": "LEAR", "parameters": {"criterion": "best"}}, "criterion: found 'best'"),
        ({"model": "LEAR", "parameters": {"level": -1}}, "level: found -1"),
        ({"model": "LEAR", "parameters": {"refit": 1.5}}, "refit: found 1.5"),
        ({"model": "LightGBM", "parameters": {"differences": 7}}, "differences: found 7"),
        ({"model": "LightGBM", "parameters": {"refit": -1}}, "refit: found -1"),
        ({"model": "LEAR", "parameters": {"windows": 30}}, "windows: found 30, a list"),
        ({"model": "DNN", "parameters": {"hidden_sizes": []}}, "hidden_sizes: found \\[\\]"),
        ({"model": "DNN", "parameters": {"dropout": 1}}, "dropout: found 1"),
        ({"model": "DNN", "parameters": {"max_steps": True}}, "max_steps: found True"),
        ({"model": "LEAR", "transform": "log"}, "transform"),
        ({"ensemble": "mean", "of": ["a", "b"], "transform": "asinh"}, "nothing else"),
    ],
)
def test_parse_pipeline__wrong_values__are_refused(model: dict[str, Any], problem: str) -> None:
    with pytest.raises(PipelineError, match=problem):
        pipeline(model)
