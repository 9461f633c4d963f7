"""Fitting: reproducible, repaired where the library is not, saved and loaded whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import ArtifactError, TrainingError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.training.trainer import fit_model, load_fitted

REPOSITORY = Path(__file__).parents[2]


def pipeline(model: Any, **changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2015-01-01",
        "models": [model],
        "exogenous": {"future": ["promotion"], "historic": ["visitors"]},
        "seed": 3,
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def panel(pipe: Pipeline, days: int = 200) -> Panel:
    rng = np.random.default_rng(1)
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2015-01-01", periods=days - 40 * i),
                "y": rng.normal(size=days - 40 * i).cumsum() + 20,
                "promotion": rng.normal(size=days - 40 * i),
                "visitors": rng.normal(size=days - 40 * i),
            }
        )
        for i, name in enumerate(["a", "b", "c"])
    ]
    return Panel.from_frame(pd.concat(parts), pipe).filled("error")


NHITS = {
    "model": "NHITS",
    "parameters": {"max_steps": 6, "input_size": 14, "windows_batch_size": 16},
}

SCRIPT = """
import json, sys
sys.path.insert(0, {repository!r})
from tests.training.test_trainer import NHITS, panel, pipeline
from ts_forecast.training import library_patches
if {plain}:
    library_patches._gathered_windows = lambda model, batch: original(model, batch, "train")
    from neuralforecast.common._base_model import BaseModel
    original = BaseModel._create_windows
from ts_forecast.training.trainer import fit_model
pipe = pipeline(NHITS)
fitted = fit_model(pipe, pipe.models[0], panel(pipe))
weights = sum(float(w.double().sum()) for w in fitted.model.parameters())
print(json.dumps([weights, fitted.curves["train_loss"]]))
"""


@pytest.fixture(scope="module")
def fits() -> dict[str, Any]:
    """The sum of weights and the losses of one fit, in three processes side by side."""
    variants = {"ours": ("1", False), "other seed": ("2", False), "library": ("1", True)}
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(repository=str(REPOSITORY), plain=plain)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for name, (hash_seed, plain) in variants.items()
    }
    answers = {}
    for name, process in processes.items():
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        answers[name] = json.loads(output.strip().splitlines()[-1])
    return answers


def test_fit_model__other_hash_seed__same_losses_and_weights(fits: dict[str, Any]) -> None:
    """The library orders exogenous columns by a set; we do not."""
    assert fits["ours"] == fits["other seed"]


def test_fit_model__gathered_windows__same_losses_and_weights_as_the_library(
    fits: dict[str, Any],
) -> None:
    assert fits["ours"] == fits["library"]


LSTM = {"model": "LSTM", "parameters": {"max_steps": 3, "input_size": 14, "recurrent": True}}


TREES = {"model": "LightGBM", "parameters": {"n_estimators": 3}, "transform": "robust"}
LEAR = {"model": "LEAR", "transform": "asinh"}
NETS = {"model": "DNN", "parameters": {"n_estimators": 2, "max_steps": 5}}


@pytest.mark.parametrize("model", [NHITS, LSTM, "AutoETS", "SeasonalNaive", TREES, LEAR, NETS])
def test_save__and_load__forecasts_the_same(model: Any, tmp_path: Path) -> None:
    from ts_forecast.predictions.rolling import forecast_pairs
    from ts_forecast.quarters import Quarter

    pipe = pipeline(model)
    data = panel(pipe)
    issued = data.issued(pipe.slice_plan(Quarter(2015, 2)), pipe)
    keep = issued.cutoff + pipe.horizon < data.known_ahead[issued.series]
    issued = type(issued)(issued.series[keep], issued.cutoff[keep])
    fitted = fit_model(pipe, pipe.models[0], data)
    fitted.save(tmp_path)

    loaded = load_fitted(tmp_path, pipe.models[0])

    before = forecast_pairs(fitted, pipe, data, issued)
    np.testing.assert_array_equal(before, forecast_pairs(loaded, pipe, data, issued))


def test_save__twice__same_bytes(tmp_path: Path) -> None:
    pipe = pipeline(NHITS)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        fit_model(pipe, pipe.models[0], panel(pipe)).save(folder)

    one, two = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert one == two


def test_save__neural__opens_with_the_library_alone(tmp_path: Path) -> None:
    from neuralforecast.models import NHITS as Library

    pipe = pipeline(NHITS)
    fit_model(pipe, pipe.models[0], panel(pipe)).save(tmp_path)

    assert Library.load(str(tmp_path / "model.safetensors")).h == 7


def test_load_fitted__another_model__refuses(tmp_path: Path) -> None:
    pipe = pipeline("SeasonalNaive")
    fit_model(pipe, pipe.models[0], panel(pipe)).save(tmp_path)

    with pytest.raises(ArtifactError, match="holds a SeasonalNaive, not a Naive"):
        load_fitted(tmp_path, pipeline("Naive").models[0])


def test_fit_model__bad_parameter__names_pipeline_and_model() -> None:
    pipe = pipeline({"model": "NHITS", "parameters": {"scaler_type": "wrong", "max_steps": 1}})

    with pytest.raises(TrainingError, match=r"Pipeline shop, model NHITS: .*wrong"):
        fit_model(pipe, pipe.models[0], panel(pipe))


def test_fit_model__loss_not_finite__names_the_step() -> None:
    pipe = pipeline(
        {"model": "NHITS", "parameters": {**NHITS["parameters"], "learning_rate": 1e30}}
    )

    with pytest.raises(TrainingError, match=r"train_loss is not finite at step|fit failed"):
        fit_model(pipe, pipe.models[0], panel(pipe))


@pytest.mark.parametrize("name", ["DeepAR", "DeepNPTS"])
def test_fit_model__levels_with_a_model_of_points__says_so(name: str) -> None:
    pipe = pipeline({"model": name, "exogenous": []}, levels=[80], intervals="model")

    with pytest.raises(TrainingError, match=rf"model {name}: {name} gives point forecasts only"):
        fit_model(pipe, pipe.models[0], panel(pipe))


def test_fit_model__levels_with_recurrent_forecasts__says_so() -> None:
    pipe = pipeline(LSTM, levels=[80], intervals="model")

    with pytest.raises(TrainingError, match="LSTM with recurrent: true gives point forecasts only"):
        fit_model(pipe, pipe.models[0], panel(pipe))


def test_fit_model__early_stopping__validates_on_the_last_horizon() -> None:
    stopping = {"early_stop_patience_steps": 2, "val_check_steps": 2}
    pipe = pipeline({"model": "NHITS", "parameters": NHITS["parameters"] | stopping})

    curves = fit_model(pipe, pipe.models[0], panel(pipe)).curves

    assert [step for step, _ in curves["valid_loss"]] == [2, 4, 6]
    assert len(curves["train_loss"]) == 6


def test_fit_model__series_with_a_handful_of_values__waits_for_its_first_cutoff() -> None:
    """An optimizer fails on three values; the series is not forecast before it has a season."""
    pipe = pipeline({"model": "AutoETS"}, exogenous={})
    data = panel(pipe)
    short = Panel.from_frame(
        pd.concat(
            [
                data.to_frame().astype({"unique_id": str}),
                pd.DataFrame(
                    {"unique_id": "new", "ds": data.ds.max() - pd.to_timedelta([2, 1, 0], "D")}
                ).assign(y=1.0),
            ]
        ),
        pipe,
    )

    fitted = fit_model(pipe, pipe.models[0], short)

    assert set(fitted.series) == {"a", "b", "c"}


def test_fit_model__naive__stores_nothing_a_series() -> None:
    pipe = pipeline("SeasonalNaive")

    assert fit_model(pipe, pipe.models[0], panel(pipe)).series == {}


def test_aligned__series_of_different_lengths__padding_is_no_observation() -> None:
    from ts_forecast.training.trainer import _aligned

    pipe = pipeline({"model": "TSMixer", "exogenous": []})
    data = panel(pipe)
    late = data.first.copy()
    late[1] += 25  # One starts later than the others, and two end earlier.
    shifted = replace(data, first=late)

    aligned, own = _aligned(shifted)

    lengths = np.diff(data.indptr)
    y, own = aligned.y.reshape(3, -1), own.reshape(3, -1)
    assert own.sum(axis=1).tolist() == lengths.tolist()
    for series in range(3):
        np.testing.assert_array_equal(y[series][own[series]], data.y[data.series_of_row == series])
    assert (y[1, :25] == 0).all()
    assert (y[2, lengths[2] :] == y[2, lengths[2] - 1]).all()


def test_apply_patches__another_library_version__keeps_the_order_and_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from neuralforecast.common._base_model import BaseModel

    from ts_forecast.training import library_patches

    library_patches.apply_patches()
    windows, columns = BaseModel._create_windows, BaseModel._get_temporal_exogenous_cols
    monkeypatch.setattr(BaseModel, "_create_windows", windows)
    monkeypatch.setattr(BaseModel, "_get_temporal_exogenous_cols", columns)
    monkeypatch.setattr(BaseModel, library_patches._PATCHED, False)
    monkeypatch.setattr(library_patches, "version", lambda name: "3.4.0")

    library_patches.apply_patches()

    assert BaseModel._create_windows is windows
    assert BaseModel._get_temporal_exogenous_cols is not columns
    assert "neuralforecast 3.4.0 is not 3.3.x" in caplog.text


def test_fit_model__series_shorter_than_a_window__is_padded() -> None:
    pipe = pipeline({"model": "MLP", "parameters": {"max_steps": 2, "input_size": 180}})

    assert fit_model(pipe, pipe.models[0], panel(pipe)).final_loss is not None
