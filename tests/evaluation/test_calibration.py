"""Calibrating models: on forecasts that a twin made before the quarter, of what may be known of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import PredictionError, TrainingError
from ts_forecast.evaluation.calibration import calibrate, calibration_cutoffs
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.training.calibration import (
    Calibration,
    calibration_of,
    is_calibrated,
    load_calibration,
)
from ts_forecast.training.conformal import series_scales
from ts_forecast.training.trainer import FittedModel, fit_model, load_fitted

QUARTER = Quarter(2023, 1)
WINDOW_AVERAGE = {"model": "WindowAverage", "parameters": {"window_size": 7}}


def pipeline(model: object = WINDOW_AVERAGE, **changes: object) -> Pipeline:
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "step": 1,
        "start": "2022-01-01",
        "levels": [80, 50],
        "models": [model],
    }
    return parse_pipeline(content | changes, origin="test")


def frame(days: int = 455, sizes: tuple[float, ...] = (1.0, 1000.0), seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ds = pd.date_range("2022-01-01", periods=days)
    parts = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": size * (5 + rng.normal(size=days))})
        for i, size in enumerate(sizes)
    ]
    return pd.concat(parts, ignore_index=True)


def trained(pipe: Pipeline, data: pd.DataFrame) -> tuple[FittedModel, Panel]:
    """The model of the quarter, and all that is known in the end."""
    panel = Panel.from_frame(data, pipe)
    history = panel.until(pipe.slice_plan(QUARTER).fit_until)
    spec = pipe.models[0]
    fitted = fit_model(pipe, spec, history.filled(pipe.missing))
    fitted.calibration = calibration_of(calibrate, pipe, spec, history, QUARTER)
    return fitted, panel


def coverage(fitted: FittedModel, pipe: Pipeline, panel: Panel) -> dict[str, list[float]]:
    """Of the quarter, by series: the share of observations within each level, ascending."""
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)
    outputs = forecast_pairs(fitted, pipe, panel, issued)
    targets = issued.cutoff[:, None] + np.arange(1, pipe.horizon + 1)
    rows = panel.rows_at(issued.series[:, None], targets)
    actual = np.where(rows >= 0, panel.y[rows], np.nan)
    found = {}
    for series, name in enumerate(panel.unique_ids):
        mine = issued.series == series
        seen, inside = actual[mine], []
        known = np.isfinite(seen)
        for low, high in ((1, 3), (0, 4)):
            held = (outputs[mine, :, low] <= seen) & (seen <= outputs[mine, :, high])
            inside.append(float(held[known].mean()))
        found[name] = inside
    return found


@pytest.mark.parametrize(
    "model",
    [
        WINDOW_AVERAGE,
        {"model": "SimpleExponentialSmoothing", "parameters": {"alpha": 0.1}},
        # Its own intervals are far too narrow on noise without a season.
        {"model": "SeasonalNaive", "intervals": "conformal"},
        {"model": "HistoricAverage", "intervals": "conformal"},
        # Widths are in the target's own units: the model's are of another size.
        {"model": "LEAR", "transform": "asinh"},
        {"model": "LEAR", "transform": "robust", "intervals": "conformal"},
    ],
)
def test_calibrate__noise_in_series_of_two_sizes__each_covers_its_level(
    model: dict[str, object],
) -> None:
    pipe = pipeline(model)

    fitted, panel = trained(pipe, frame())

    assert fitted.calibration is not None
    for name, (half, most) in coverage(fitted, pipe, panel).items():
        assert half == pytest.approx(0.5, abs=0.15), name
        assert most == pytest.approx(0.8, abs=0.12), name


def test_calibrate__what_comes_after_the_first_cutoff__moves_nothing() -> None:
    pipe = pipeline()
    data = frame()
    until = pipe.grid.timestamps(np.array([pipe.slice_plan(QUARTER).fit_until]))[0]
    restated = data.assign(y=np.where(data["ds"] > until, -77.0, data["y"]))
    earlier = data.assign(y=np.where(data["ds"] == until, -77.0, data["y"]))

    before, after, other = (trained(pipe, one)[0].calibration for one in (data, restated, earlier))

    assert before == after
    assert before != other  # The control: the last day that it may see matters.


def test_calibrate__again__is_the_same_and_comes_back_from_its_file(tmp_path: Path) -> None:
    pipe = pipeline()
    fitted, panel = trained(pipe, frame())
    again, _ = trained(pipe, frame())
    fitted.save(tmp_path)

    loaded = load_fitted(tmp_path, pipe.models[0])

    assert loaded.calibration == fitted.calibration == again.calibration
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)
    np.testing.assert_array_equal(
        forecast_pairs(loaded, pipe, panel, issued), forecast_pairs(fitted, pipe, panel, issued)
    )


def test_calibrate__neural_model_of_points__gets_intervals() -> None:
    parameters = {"max_steps": 2, "input_size": 14, "windows_batch_size": 16, "recurrent": True}
    small = {"encoder_hidden_size": 4, "encoder_n_layers": 1, "decoder_hidden_size": 4}
    pipe = pipeline({"model": "LSTM", "parameters": parameters | small})

    fitted, panel = trained(pipe, frame(sizes=(1.0, 2.0)))

    for half, most in coverage(fitted, pipe, panel).values():
        assert 0.1 < half < most < 1
    with pytest.raises(TrainingError, match="recurrent: true gives point forecasts only"):
        fit_model(pipeline(pipe.models[0].model_dump(), intervals="model"), pipe.models[0], panel)


def test_calibrate__history_of_a_week__says_why_there_are_no_intervals() -> None:
    pipe = pipeline(start="2022-12-20", min_history=7)
    data = frame(days=20).assign(ds=lambda d: d["ds"] + pd.Timedelta("352D"))

    fitted, panel = trained(pipe, data)

    assert fitted.calibration is not None
    assert fitted.calibration.note == "the history is shorter than two horizons"
    outputs = forecast_pairs(fitted, pipe, panel, panel.issued(pipe.slice_plan(QUARTER), pipe))
    assert np.isfinite(outputs[:, :, 2]).all()
    assert np.isnan(outputs[:, :, [0, 1, 3, 4]]).all()


def test_calibration_cutoffs__window__is_the_last_quarter_of_the_history() -> None:
    pipe = pipeline(step=7)
    history = Panel.from_frame(frame(days=365), pipe)

    cutoffs = calibration_cutoffs(pipe, history, QUARTER)

    at = pipe.grid.timestamps(cutoffs)
    assert (at[0], at[-1]) == (pd.Timestamp("2022-10-02"), pd.Timestamp("2022-12-18"))


def test_series_scales__large_and_small_series__by_what_is_known_at_the_cutoff() -> None:
    pipe = pipeline(season_length=1)
    data = pd.DataFrame(
        {
            "unique_id": np.repeat(["constant", "none", "steps"], 50),
            "ds": np.tile(pd.date_range("2022-01-01", periods=50), 3),
            "y": np.concatenate([np.full(50, 3.0), np.zeros(50), np.arange(50.0) ** 2]),
        }
    )
    panel = Panel.from_frame(data, pipe)
    issued = panel.issued(replace(pipe.slice_plan(QUARTER), cutoffs=panel.index[:50]), pipe)

    scales = series_scales(panel, issued, 1)

    assert set(scales[issued.series == 0]) == {3.0}
    assert np.isnan(scales[issued.series == 1]).all()
    # The mean of 1, 3, 5, … is the number of them.
    known = (issued.cutoff - panel.first[2])[issued.series == 2]
    np.testing.assert_allclose(scales[issued.series == 2][known > 0], known[known > 0])


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        ("SeasonalNaive", {}, False),
        ("SeasonalNaive", {"intervals": "conformal"}, True),
        (WINDOW_AVERAGE, {}, True),
        (WINDOW_AVERAGE, {"intervals": "model"}, False),
        (WINDOW_AVERAGE, {"levels": []}, False),
        (WINDOW_AVERAGE | {"intervals": "conformal"}, {"intervals": "model"}, True),
        ("NHITS", {}, False),
        ("NHITS", {"intervals": "conformal"}, True),
        ("DeepAR", {}, True),
        ("AutoDeepAR", {}, True),
    ],
)
def test_is_calibrated__as_the_pipeline_says(
    model: object, changes: dict[str, object], expected: bool
) -> None:
    pipe = pipeline(model, **changes)

    assert is_calibrated(pipe, pipe.models[0]) is expected


def test_calibration_of__nobody_to_calibrate__says_so() -> None:
    pipe = pipeline()

    with pytest.raises(TrainingError, match="nobody is there to calibrate"):
        calibration_of(None, pipe, pipe.models[0], Panel.from_frame(frame(), pipe), QUARTER)


def test_forecast_pairs__calibrated_for_other_levels__says_what_to_do() -> None:
    fitted, panel = trained(pipeline(), frame())
    pipe = pipeline(levels=[90])
    issued = panel.issued(pipe.slice_plan(QUARTER), pipe)

    with pytest.raises(PredictionError, match=r"the levels \[50, 80\].*Materialize"):
        forecast_pairs(fitted, pipe, panel, issued)


def test_load_calibration__levels_without_widths__come_back(tmp_path: Path) -> None:
    given = Calibration(
        radii={80: (1.5, None)},
        around_point=True,
        scores=(3, 0),
        pooled=(0, 1),
        typical_scale=2.0,
        error=None,
        cutoffs=("2022-01-01T00:00:00",),
        note="few",
    )

    given.save(tmp_path)

    assert load_calibration(tmp_path) == given
    assert load_calibration(tmp_path / "elsewhere") is None
