"""Fitting a model on a panel, and bringing a fitted model to disk and back. No database here."""

from __future__ import annotations

import json
import math
import pickle
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import ArtifactError, TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.training.boosted import fit_boosted, load_openmp
from ts_forecast.training.calibration import Calibration, load_calibration
from ts_forecast.training.dense import fit_dense
from ts_forecast.training.linear import fit_linear
from ts_forecast.training.neural import quiet_libraries
from ts_forecast.training.neural_fit import fit_neural
from ts_forecast.training.options import FitOptions
from ts_forecast.training.statistical import fit_series
from ts_forecast.training.target_transform import TargetTransform, fit_transform

_DESCRIPTION = "ts_forecast.json"
_WEIGHTS = "model.safetensors"
_SERIES = "series.pickle"
_REGRESSION = "regression.pickle"


@dataclass
class FittedModel:
    """A model that can forecast.

    Attributes:
        model: a neuralforecast object, ``boosted.Boosted`` or ``dense.Dense``; None for models a series.
        series: fitted objects by ``unique_id``; empty for models without parameters.
        unique_ids: the series that it was fitted on, in order.
        curves: ``{name: [(step, loss), …]}``.
        samples: observations that it was fitted on.
        seconds: wall time of the fit.
        conduct: how a neural fit went (``neural_fit.NeuralFit``); empty for others.
        calibration: of its intervals; None where they are the model's own, or it has none.
        transform: of the target, in which it was fitted; None if it was not transformed.
    """

    spec: ModelSpec
    model: Any
    series: dict[str, Any]
    unique_ids: tuple[str, ...]
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    conduct: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    transform: TargetTransform | None = None

    @property
    def final_loss(self) -> float | None:
        """The last training loss; None where nothing is descended."""
        curve = self.curves.get("train_loss")
        return curve[-1][1] if curve else None

    def save(self, folder: Path) -> None:
        """Write the model into an empty folder.

        Neural models become ``model.safetensors``, which ``neuralforecast.models.<Class>.load`` opens;
        others a pickle, which is only read back after its hash was verified.
        """
        description = {
            "model": self.spec.model,
            "name": self.spec.name,
            "unique_ids": self.unique_ids,
            "samples": self.samples,
            "inference_input_size": getattr(self.model, "inference_input_size", None),
        }
        if self.transform is not None:
            description["transform"] = {
                "kind": self.transform.kind,
                "scales": dict(self.transform.scales),
            }
        (folder / _DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
        if self.spec.model in ("DNN", "LightGBM"):
            (folder / _REGRESSION).write_bytes(pickle.dumps(self.model, protocol=5))
        elif self.model is not None:
            self.model.save(str(folder / _WEIGHTS))
            _sort_header(folder / _WEIGHTS)
        elif self.series:
            (folder / _SERIES).write_bytes(pickle.dumps(self.series, protocol=5))
        if self.calibration is not None:
            self.calibration.save(folder)


def fit_model(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, options: FitOptions | None = None
) -> FittedModel:
    """Fit a model on all of a panel; with early stopping or ``val_size``, on all but its end.

    Args:
        panel: cut at what the model may see (``Panel.until``) and filled (``Panel.filled``).

    Raises:
        OutOfMemoryError: memory does not suffice, even for the smallest batches.
        TrainingError: the library refuses, or the loss is not finite.
    """
    begun = time.monotonic()
    transform = fit_transform(spec, panel)
    if transform is not None:
        panel = transform.apply(panel, pipeline)
    fitted = _fit(pipeline, spec, panel, options or FitOptions())
    return replace(fitted, transform=transform, seconds=time.monotonic() - begun)


def _fit(pipeline: Pipeline, spec: ModelSpec, panel: Panel, options: FitOptions) -> FittedModel:
    if spec.model == "LightGBM":
        model = fit_boosted(pipeline, spec, panel)
        return FittedModel(spec, model, {}, panel.unique_ids, samples=panel.n_rows)
    if spec.model == "DNN":
        nets = fit_dense(pipeline, spec, panel)
        losses = {"train_loss": list(nets.curve)}
        return FittedModel(spec, nets, {}, panel.unique_ids, losses, panel.n_rows)
    if spec.model == "LEAR":
        series: dict[str, Any] = {**fit_linear(pipeline, spec, panel)}
        return FittedModel(spec, None, series, panel.unique_ids, samples=panel.n_rows)
    if not spec.kind.is_neural:
        histories = {
            unique_id: panel.y[panel.indptr[i] : panel.indptr[i + 1]]
            for i, unique_id in enumerate(panel.unique_ids)
        }
        series = fit_series(pipeline, spec, histories)
        return FittedModel(spec, None, series, panel.unique_ids, samples=panel.n_rows)
    samples, mask = panel.n_rows, None
    if spec.kind.multivariate:
        panel, mask = _aligned(panel)
    fit = fit_neural(pipeline, spec, panel, mask, options)
    model = fit.model
    curves = {
        "train_loss": _curve(model.train_trajectories),
        "valid_loss": _curve(model.valid_trajectories),
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    for name, curve in curves.items():
        bad = [step for step, loss in curve if not math.isfinite(loss)]
        if bad:
            raise TrainingError(
                f"Pipeline {pipeline.name}, model {spec.name}: {name} is not finite at step {bad[0]}.",
                remedy="Lower learning_rate, set scaler_type, or look for extreme values in y.",
            )
    return FittedModel(spec, model, {}, panel.unique_ids, curves, samples, conduct=fit.conduct)


def load_fitted(folder: Path, spec: ModelSpec) -> FittedModel:
    """A fitted model from its folder, whose hash the caller has verified.

    Raises:
        ArtifactError: the folder holds another model, or none.
    """
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} holds no model of ours: {error}.") from error
    if description["model"] != spec.model:
        raise ArtifactError(f"{folder} holds a {description['model']}, not a {spec.model}.")
    model, series = None, {}
    if spec.kind.is_neural:
        import neuralforecast.models as library

        from ts_forecast.training.device import accelerator
        from ts_forecast.training.library_patches import apply_patches

        apply_patches()
        quiet_libraries()
        model = getattr(library, spec.model).load(str(folder / _WEIGHTS), map_location="cpu")
        model.trainer_kwargs["accelerator"] = accelerator()
        # Forecasts are made in full precision, and on whatever device this process has.
        model.trainer_kwargs.pop("precision", None)
        if description["inference_input_size"] is not None:
            # The library stores it after adding one for recurrent models, and adds one again.
            model.inference_input_size = description["inference_input_size"]
    elif (folder / _REGRESSION).exists():
        if spec.model == "LightGBM":
            load_openmp()
        model = pickle.loads((folder / _REGRESSION).read_bytes())  # noqa: S301 — hash verified
    elif (folder / _SERIES).exists():
        series = pickle.loads((folder / _SERIES).read_bytes())  # noqa: S301 — hash verified
    known = description.get("transform")
    return FittedModel(
        spec,
        model,
        series,
        tuple(description["unique_ids"]),
        samples=description["samples"],
        calibration=load_calibration(folder),
        transform=None if known is None else TargetTransform(**known),
    )


def _sort_header(path: Path) -> None:
    """Give a safetensors file's header a fixed order: it is written in the order of a hash map.

    Equal weights then have equal bytes. A file is eight bytes of the header's length, the header in
    JSON, padded with blanks, and the tensors.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def _curve(trajectory: list[Any]) -> list[tuple[int, float]]:
    return [(int(step), float(loss)) for step, loss in trajectory]


def _aligned(panel: Panel) -> tuple[Panel, npt.NDArray[np.bool_]]:
    """For multivariate models: every series over the same rows.

    Before its start a series is 0; after its end its last value is carried, as forecasting does at a
    cutoff where it has not been seen for a while. Neither is learnt from.

    Returns:
        The panel, and which of its rows are the series' own.
    """
    first = int(panel.first.min())
    length = int((panel.first + np.diff(panel.indptr)).max()) - first
    index = np.arange(length)[None, :] - (panel.first - first)[:, None]
    own = (index >= 0) & (index < np.diff(panel.indptr)[:, None])
    rows = panel.indptr[:-1, None] + np.clip(index, 0, np.diff(panel.indptr)[:, None] - 1)
    began = (index >= 0).reshape(-1)
    aligned = replace(
        panel,
        first=np.full(panel.n_series, first),
        indptr=np.arange(panel.n_series + 1, dtype=np.int64) * length,
        y=np.where(began, panel.y[rows.reshape(-1)], 0.0),
        exogenous=np.where(began[:, None], panel.exogenous[rows.reshape(-1)], 0.0),
    )
    return aligned, own.reshape(-1)
