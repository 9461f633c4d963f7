"""Every formula equals statsforecast, intervals included, for any history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ts_forecast.predictions.naive import can_vectorize, naive_forecasts, shortest_history

HORIZON = 9
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("Naive", {}),
    ("SeasonalNaive", {"season_length": 4}),
    ("SeasonalNaive", {"season_length": 1}),
    ("HistoricAverage", {}),
    ("RandomWalkWithDrift", {}),
    ("WindowAverage", {"window_size": 5}),
    ("SeasonalWindowAverage", {"season_length": 4, "window_size": 2}),
]


@pytest.mark.parametrize(("name", "parameters"), MODELS)
@settings(max_examples=15, deadline=None)
@given(y=arrays(np.float64, 30, elements=st.floats(-1e6, 1e6, width=32)))
def test_naive_forecasts__any_history__equal_the_library(
    name: str, parameters: dict[str, Any], y: np.ndarray
) -> None:
    import statsforecast.models as library

    model = getattr(library, name)(**parameters)
    lengths = np.array([shortest_history(model), 17, 30])

    ours = naive_forecasts(model, y, lengths, HORIZON, QUANTILES)

    for place, length in enumerate(lengths):
        if "Window" in name:
            theirs = model.forecast(y=y[:length], h=HORIZON)["mean"][:, None]
            assert np.isnan(np.delete(ours[place], 2, axis=1)).all()
            mine = ours[place][:, 2:3]
        else:
            result = model.forecast(y=y[:length], h=HORIZON, level=[50, 80])
            columns = ["lo-80", "lo-50", "mean", "hi-50", "hi-80"]
            theirs = np.column_stack([result[column] for column in columns])
            mine = ours[place]
        scale = max(1.0, np.abs(y[:length]).max())
        np.testing.assert_allclose(mine / scale, theirs / scale, atol=1e-9)


@pytest.mark.parametrize(("name", "parameters"), MODELS)
def test_naive_forecasts__no_quantiles__the_mean_alone(
    name: str, parameters: dict[str, Any]
) -> None:
    import statsforecast.models as library

    model = getattr(library, name)(**parameters)
    y = np.random.default_rng(0).normal(size=40).cumsum()

    ours = naive_forecasts(model, y, np.array([40]), HORIZON, ())

    assert ours.shape == (1, HORIZON, 1)
    np.testing.assert_allclose(ours[0, :, 0], model.forecast(y=y, h=HORIZON)["mean"], rtol=1e-12)


def test_can_vectorize__a_model_with_parameters__is_left_to_the_library() -> None:
    from statsforecast.models import AutoETS, SeasonalNaive

    assert can_vectorize(SeasonalNaive(season_length=7))
    assert not can_vectorize(AutoETS(season_length=7))
