"""One pass over all cutoffs equals a ``predict()`` from each, with the history cut there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import PredictionError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.training.trainer import FittedModel, fit_model

QUARTER = Quarter(2015, 4)
DAYS = pd.date_range("2014-06-01", "2015-12-31")
TINY = {"max_steps": 3, "input_size": 20}


def pipeline(model: dict[str, Any], **changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "shop.csv", "static": {"files": "stores.csv"}},
        "frequency": "D",
        "horizon": 14,
        "step": 7,
        "start": "2014-06-01",
        "missing": "error",
        "levels": [80, 50],
        "models": [model],
        "exogenous": {
            "future": ["promotion"],
            "historic": ["visitors"],
            "static": ["size"],
            "calendar": ["weekday"],
        },
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def history() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": DAYS,
                "y": 10 + i + np.sin(np.arange(len(DAYS)) / 3) + rng.normal(size=len(DAYS)),
                "promotion": rng.normal(size=len(DAYS)),
                "visitors": rng.normal(size=len(DAYS)),
            }
        )
        for i, name in enumerate(["a", "b", "late"])
    ]
    frame = pd.concat(parts, ignore_index=True)
    # One series is shorter than the window: it is padded, as the library pads it.
    is_early = (frame["unique_id"] == "late") & (frame["ds"] < "2015-09-21")
    static = pd.DataFrame(
        {"size": [1.0, 2.0, 3.0]}, index=pd.Index(["a", "b", "late"], name="unique_id")
    )
    return frame[~is_early], static


def predict_from(
    fitted: FittedModel, pipe: Pipeline, panel: Panel, cutoff: int, static: pd.DataFrame
) -> pd.DataFrame:
    """The library's own forecast with the history up to one cutoff."""
    from neuralforecast import NeuralForecast

    library = NeuralForecast(models=[fitted.model], freq="D")
    # What fit() would set; the model was fitted by us.
    library._fitted = True
    library.scalers_ = {}
    library.static_scalers_ = {}
    library.id_col, library.time_col, library.target_col = "unique_id", "ds", "y"
    library.prediction_intervals = None
    exogenous = pipe.exogenous_of(fitted.spec)
    future = list(exogenous.all_future)
    known = panel.until(cutoff).to_frame().astype({"unique_id": str})
    ahead = None
    if future:
        later = panel.until(cutoff + pipe.horizon).to_frame().astype({"unique_id": str})
        later = later[later["ds"] > panel.grid.timestamps(np.array([cutoff]))[0]]
        ahead = later.loc[later["unique_id"].isin(known["unique_id"]), ["unique_id", "ds", *future]]
    stores = static.reset_index()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library.predict(
            df=known[["unique_id", "ds", "y", *future, *exogenous.historic]],
            static_df=stores[stores["unique_id"].isin(known["unique_id"])]
            if exogenous.static
            else None,
            futr_df=ahead,
        )


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            {"model": "NHITS", "parameters": {**TINY, "scaler_type": "standard"}}, id="NHITS"
        ),
        pytest.param({"model": "DLinear", "parameters": TINY, "exogenous": []}, id="DLinear"),
        pytest.param({"model": "LSTM", "parameters": TINY}, id="LSTM"),
        pytest.param(
            {"model": "GRU", "parameters": {**TINY, "inference_input_size": 30}}, id="GRU"
        ),
        pytest.param(
            {
                "model": "PatchTST",
                "parameters": {**TINY, "hidden_size": 16, "n_heads": 2, "encoder_layers": 1},
                "exogenous": [],
            },
            id="PatchTST",
        ),
        pytest.param({"model": "TSMixerx", "parameters": TINY}, id="TSMixerx"),
    ],
)
def test_forecast_pairs__neural__equals_predict_from_each_cutoff(model: dict[str, Any]) -> None:
    frame, static = history()
    pipe = pipeline(model)
    if pipe.models[0].kind.multivariate:
        frame = frame[frame["unique_id"] != "late"]
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    issued = panel.issued(plan, pipe)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))

    together = forecast_pairs(fitted, pipe, panel, issued)

    assert together.shape == (len(issued), 14, 5)
    for cutoff in np.unique(issued.cutoff):
        alone = predict_from(fitted, pipe, panel, int(cutoff), static)
        columns = [name for name in alone.columns if name not in ("unique_id", "ds")]
        for series in issued.series[issued.cutoff == cutoff]:
            mine = together[(issued.series == series) & (issued.cutoff == cutoff)][0]
            theirs = alone.loc[alone["unique_id"] == panel.unique_ids[series], columns].to_numpy()
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(mine / scale, np.sort(theirs, axis=1) / scale, atol=1e-5)


@pytest.mark.parametrize("name", ["SeasonalNaive", "AutoETS"])
def test_forecast_pairs__statistical__equals_the_library_at_each_cutoff(name: str) -> None:
    import statsforecast.models as library

    frame, static = history()
    pipe = pipeline({"model": name})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    issued = panel.issued(plan, pipe)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))

    together = forecast_pairs(fitted, pipe, panel, issued)

    for place in (0, len(issued) // 2, len(issued) - 1):
        name_of = panel.unique_ids[issued.series[place]]
        values = frame[frame["unique_id"] == name_of].set_index("ds")["y"]
        until = panel.grid.timestamps(issued.cutoff[place : place + 1])[0]
        y = values[:until].to_numpy()
        model = getattr(library, name)(season_length=7)
        if name == "AutoETS":
            start = panel.grid.timestamps(np.array([plan.fit_until]))[0]
            at_fit = values[:start] if len(values[:start]) >= 7 else values[:until]
            expected = model.fit(at_fit.to_numpy()).forward(y=y, h=14, level=[50, 80])
        else:
            expected = model.forecast(y=y, h=14, level=[50, 80])
        columns = ["lo-80", "lo-50", "mean", "hi-50", "hi-80"]
        theirs = np.column_stack([expected[column] for column in columns])
        if name_of != "late" or name == "SeasonalNaive":
            np.testing.assert_allclose(together[place], np.sort(theirs, axis=1), rtol=1e-9)


def test_forecast_pairs__new_series__is_forecast_by_a_global_model() -> None:
    frame, static = history()
    pipe = pipeline({"model": "NHITS", "parameters": TINY})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    known = panel.until(plan.fit_until - 30).filled("error")
    assert "late" not in known.unique_ids

    issued = panel.issued(plan, pipe)
    outputs = forecast_pairs(fit_model(pipe, pipe.models[0], known), pipe, panel, issued)

    assert "late" in {panel.unique_ids[i] for i in issued.series}
    assert np.isfinite(outputs).all()


def test_forecast_pairs__quantiles__never_cross() -> None:
    frame, static = history()
    pipe = pipeline({"model": "MLP", "parameters": {**TINY, "max_steps": 1}})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))

    outputs = forecast_pairs(fitted, pipe, panel, panel.issued(plan, pipe))

    assert (np.diff(outputs, axis=2) >= 0).all()


def test_forecast_pairs__weights_not_finite__names_model_series_and_cutoff() -> None:
    import torch

    frame, static = history()
    pipe = pipeline({"model": "MLP", "parameters": TINY})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))
    with torch.no_grad():
        for weight in fitted.model.parameters():
            weight.fill_(float("nan"))

    with pytest.raises(PredictionError, match=r"model MLP: the forecast of series 'a' from 2015-"):
        forecast_pairs(fitted, pipe, panel, panel.issued(plan, pipe))


def test_forecast_pairs__multivariate_with_a_stranger__refuses() -> None:
    frame, static = history()
    pipe = pipeline({"model": "TSMixerx", "parameters": TINY})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until - 30).filled("error"))
    series = np.array([2])

    with pytest.raises(PredictionError, match="series 'late' was not there"):
        forecast_pairs(fitted, pipe, panel, Issued(series, plan.cutoffs[-1:]))


def test_forecast_pairs__multivariate__many_series__are_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More series than a batch holds: split, the model would see a part of them as all."""
    from ts_forecast.predictions import rolling

    frame, static = history()
    frame = frame[frame["unique_id"] != "late"]
    pipe = pipeline({"model": "TSMixerx", "parameters": TINY})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))
    issued = panel.issued(plan, pipe)
    before = forecast_pairs(fitted, pipe, panel, issued)

    monkeypatch.setattr(rolling, "_BATCH", 1)

    np.testing.assert_array_equal(before, forecast_pairs(fitted, pipe, panel, issued))


def test_forecast_pairs__in_chunks__the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from ts_forecast.predictions import rolling

    frame, static = history()
    pipe = pipeline({"model": "NHITS", "parameters": TINY})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))
    issued = panel.issued(plan, pipe)
    before = forecast_pairs(fitted, pipe, panel, issued)

    monkeypatch.setattr(rolling, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(rolling, "_BATCH", 7)

    np.testing.assert_allclose(before, forecast_pairs(fitted, pipe, panel, issued), rtol=1e-5)


def test_forecast_pairs__multivariate_after_a_series_ended__as_within_a_gap() -> None:
    """At the cutoff nobody knows whether a series has ended: its later values must not tell."""
    frame, static = history()
    frame = frame[frame["unique_id"] != "late"]
    pipe = pipeline({"model": "TSMixer", "parameters": TINY, "exogenous": []}, missing="ffill")
    whole = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], whole.until(plan.fit_until).filled("error"))
    cutoff = plan.cutoffs[-2:-1]
    at = whole.grid.timestamps(cutoff)[0]
    known = (frame["unique_id"] != "b") | (frame["ds"] <= at - pd.Timedelta("5D"))
    first = Issued(np.array([0]), cutoff)

    ended, in_gap, no_gap = (
        forecast_pairs(fitted, pipe, Panel.from_frame(part, pipe, static), first)
        for part in (frame[known], frame[known | (frame["ds"] > at)], frame)
    )

    np.testing.assert_array_equal(ended, in_gap)
    assert not np.array_equal(ended, no_gap)


@pytest.mark.parametrize("name", ["Naive", "HistoricAverage", "AutoETS"])
def test_forecast_pairs__no_levels__one_output(name: str) -> None:
    frame, static = history()
    pipe = pipeline({"model": name}, levels=[])
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))
    issued = panel.issued(plan, pipe)

    outputs = forecast_pairs(fitted, pipe, panel, issued)

    assert outputs.shape == (len(issued), 14, 1)
    assert np.isfinite(outputs).all()


def test_forecast_pairs__history_too_short_for_the_model__names_the_remedy() -> None:
    frame, static = history()
    pipe = pipeline({"model": "SeasonalNaive", "parameters": {"season_length": 365}})
    panel = Panel.from_frame(frame, pipe, static)
    plan = pipe.slice_plan(QUARTER)
    fitted = fit_model(pipe, pipe.models[0], panel.until(plan.fit_until).filled("error"))

    with pytest.raises(PredictionError, match=r"series 'late' from 2015-.*Raise `min_history`"):
        forecast_pairs(fitted, pipe, panel, panel.issued(plan, pipe))
