"""Whatever happens after a cutoff, forecasts from it and from earlier ones stay what they were."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ts_forecast.datasets.panel import Panel
from ts_forecast.evaluation.calibration import calibrate
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.training.calibration import calibration_of, calibration_payload
from ts_forecast.training.quarter import training_fingerprint
from ts_forecast.training.trainer import FittedModel, fit_model

QUARTER = Quarter(2015, 4)
TINY = {"max_steps": 3, "input_size": 14, "scaler_type": "standard", "windows_batch_size": 32}
PIPELINE: Pipeline = parse_pipeline(
    {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": 10,
        "step": 7,
        "start": "2015-01-01",
        "missing": "interpolate",
        "levels": [80],
        "exogenous": {"historic": ["visitors"], "calendar": ["weekday"]},
        "models": [
            {"model": "NHITS", "parameters": TINY},
            {"model": "TSMixerx", "parameters": TINY},
            "SeasonalNaive",
            "AutoETS",
            {"model": "WindowAverage", "parameters": {"window_size": 5}},
            {"model": "SeasonalNaive", "name": "Calibrated", "intervals": "conformal"},
            {"model": "LEAR", "transform": "asinh", "exogenous": ["visitors", "weekday"]},
            {
                "model": "DNN",
                "parameters": {"max_steps": 20, "n_estimators": 2, "refit": 3},
                "exogenous": ["visitors", "weekday"],
            },
            {
                "model": "LightGBM",
                "transform": "robust",
                "parameters": {"n_estimators": 3, "differences": [1]},
            },
        ],
    },
    origin="shop.yaml",
)
PLAN = PIPELINE.slice_plan(QUARTER)


def history() -> pd.DataFrame:
    """Three series; one has a gap over a cutoff, one ends within the quarter."""
    rng = np.random.default_rng(5)
    days = pd.date_range("2015-01-01", "2015-12-31")
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c"], len(days)),
            "ds": np.tile(days, 3),
            "y": rng.normal(size=3 * len(days)).cumsum() + 50,
            "visitors": rng.normal(size=3 * len(days)),
        }
    )
    inside = PIPELINE.grid.timestamps(PLAN.cutoffs[4:5])[0]
    around = frame["ds"].between(inside - pd.Timedelta("2D"), inside + pd.Timedelta("3D"))
    is_gone = (frame["unique_id"] == "b") & around
    has_ended = (frame["unique_id"] == "c") & (frame["ds"] > "2015-11-20")
    return frame[~is_gone & ~has_ended].reset_index(drop=True)


FRAME = history()


@pytest.fixture(scope="module")
def fitted() -> Mapping[str, FittedModel]:
    history = Panel.from_frame(FRAME, PIPELINE).until(PLAN.fit_until)
    models = {}
    for spec in PIPELINE.models:
        model = fit_model(PIPELINE, spec, history.filled("interpolate"))
        model.calibration = calibration_of(calibrate, PIPELINE, spec, history, QUARTER)
        models[spec.name] = model
    return models


def forecasts(model: FittedModel, frame: pd.DataFrame) -> dict[tuple[str, int], np.ndarray]:
    panel = Panel.from_frame(frame, PIPELINE)
    issued = panel.issued(PLAN, PIPELINE)
    outputs = forecast_pairs(model, PIPELINE, panel, issued)
    keys = zip(issued.series.tolist(), issued.cutoff.tolist(), strict=True)
    return {(panel.unique_ids[s], c): out for (s, c), out in zip(keys, outputs, strict=True)}


@st.composite
def other_futures(draw: st.DrawFn) -> tuple[int, pd.DataFrame]:
    """A cutoff, and the history with anything else after it: other values, more gaps, an early end."""
    cutoff = int(draw(st.sampled_from(PLAN.cutoffs.tolist())))
    at = PIPELINE.grid.timestamps(np.array([cutoff]))[0]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1.0, 1e6]))
    lost = draw(st.sampled_from([0.0, 0.3, 0.95]))
    frame = FRAME.copy()
    is_later = (frame["ds"] > at).to_numpy()
    for column in ("y", "visitors"):
        noise = rng.normal(size=len(frame)) * scale
        frame[column] = np.where(is_later, noise, frame[column])
    is_lost = is_later & (rng.random(len(frame)) < lost)
    return cutoff, frame[~is_lost].reset_index(drop=True)


@pytest.mark.parametrize("name", [spec.name for spec in PIPELINE.models])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(other=other_futures())
def test_forecast_pairs__another_future__same_forecasts_up_to_the_cutoff(
    fitted: Mapping[str, FittedModel], name: str, other: tuple[int, pd.DataFrame]
) -> None:
    cutoff, frame = other
    before, after = forecasts(fitted[name], FRAME), forecasts(fitted[name], frame)

    shared = [key for key in before if key[1] <= cutoff and key in after]
    assert shared
    for key in shared:
        # A chunk of another size may be summed in another order; nothing else may differ.
        np.testing.assert_allclose(before[key], after[key], rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(other=other_futures())
def test_training_fingerprint__another_future__the_same(other: tuple[int, pd.DataFrame]) -> None:
    _, frame = other
    before = Panel.from_frame(FRAME, PIPELINE).until(PLAN.fit_until)
    after = Panel.from_frame(frame, PIPELINE).until(PLAN.fit_until)

    for spec in PIPELINE.models:
        marks = [
            training_fingerprint(
                PIPELINE,
                spec,
                QUARTER,
                panel.filled("interpolate"),
                calibration=calibration_payload(PIPELINE, spec, panel),
            )
            for panel in (before, after)
        ]
        assert marks[0] == marks[1]


def test_training_fingerprint__the_last_value_it_may_see__matters() -> None:
    """The rule of the test above would also hold for a fingerprint that ignores the data."""
    frame = FRAME.copy()
    at = PIPELINE.grid.timestamps(np.array([PLAN.fit_until]))[0]
    frame.loc[frame["ds"] == at, "y"] += 1e-6
    before, after = (
        Panel.from_frame(part, PIPELINE).until(PLAN.fit_until).filled("interpolate")
        for part in (FRAME, frame)
    )

    spec = PIPELINE.models[0]
    assert training_fingerprint(PIPELINE, spec, QUARTER, before) != training_fingerprint(
        PIPELINE, spec, QUARTER, after
    )


@pytest.mark.parametrize("name", [spec.name for spec in PIPELINE.models])
def test_forecast_pairs__cutoff_within_a_gap__forecasts_from_the_last_value(
    fitted: Mapping[str, FittedModel], name: str
) -> None:
    """Interpolating the gap would look past the cutoff; cutting the history there does not."""
    inside = int(PLAN.cutoffs[4])
    at = PIPELINE.grid.timestamps(np.array([inside]))[0]
    is_later = (FRAME["unique_id"] == "b") & (FRAME["ds"] > at)
    far = FRAME.assign(y=np.where(is_later, FRAME["y"] * 1000, FRAME["y"]))

    before, after = forecasts(fitted[name], FRAME), forecasts(fitted[name], far)

    np.testing.assert_allclose(before["b", inside], after["b", inside], rtol=1e-5, atol=1e-5)
    following = int(PLAN.cutoffs[5])
    assert not np.allclose(before["b", following], after["b", following])
