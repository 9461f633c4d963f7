"""Fitting: reproducible, repaired where the library is not, saved and loaded whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def fit_elsewhere(*, hash_seed: str, plain: bool = False) -> list[Any]:
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(repository=str(REPOSITORY), plain=plain)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


def test_fit_model__other_hash_seeds__same_weights() -> None:
    """The library orders exogenous columns by a set; we do not."""
    assert fit_elsewhere(hash_seed="1") == fit_elsewhere(hash_seed="2")


def test_fit_model__gathered_windows__same_losses_and_weights_as_the_library() -> None:
    ours, theirs = fit_elsewhere(hash_seed="0"), fit_elsewhere(hash_seed="0", plain=True)

    assert ours[1] == theirs[1]
    assert ours[0] == pytest.approx(theirs[0], abs=0)


@pytest.mark.parametrize("model", [NHITS, "AutoETS", "SeasonalNaive"])
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


def test_fit_model__series_shorter_than_a_window__is_padded() -> None:
    pipe = pipeline({"model": "MLP", "parameters": {"max_steps": 2, "input_size": 180}})

    assert fit_model(pipe, pipe.models[0], panel(pipe)).final_loss is not None
