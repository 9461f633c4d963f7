"""DNN: a dense net on the inputs of LEAR, all steps of the horizon at once.

After the other model of Lago, Marcjasz, De Schutter and Weron (2021), for any frequency and any number of
series. It reads the blocks of ``lagged_inputs`` and the calendar of the first step, from which the other
steps' dates follow. What is descended is the mean quantile loss of the pipeline's quantiles, the absolute
error of a point forecast. Forecasts are the mean of several nets from seeds of their own. One model over
all series and steps; a ``transform`` brings series to one scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.regression_parameters import DNNParameters, own_parameters
from ts_forecast.training.lagged_inputs import (
    calendar_ahead,
    forecast_anew,
    lagged_inputs,
    last_row,
    levels,
    targets,
    training_pairs,
)

FloatArray = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
Layers = tuple[tuple[Single, Single], ...]

_CURVE_STEPS = 50


@dataclass(frozen=True)
class Dense:
    """Fitted nets.

    Attributes:
        nets: of each net and layer, weights ``[inputs, units]`` and offsets ``[units]``.
        moves: which inputs moved when it was fitted; the others are not read.
        low, high: where the inputs that are read are cut off.
        center, scale: of these inputs.
        target_center, target_scale: ``[horizon]``.
        until: grid index of the last row of the panel that they were fitted on.
        curve: mean training loss of the nets by step, of the steps since the point before.
    """

    nets: tuple[Layers, ...]
    moves: npt.NDArray[np.bool_]
    low: FloatArray
    high: FloatArray
    center: FloatArray
    scale: FloatArray
    target_center: FloatArray
    target_scale: FloatArray
    until: int
    curve: tuple[tuple[int, float], ...]


def fit_dense(pipeline: Pipeline, spec: ModelSpec, panel: Panel) -> Dense:
    """Nets over all series of a filled panel.

    The same panel gives the same nets, on however many cores: they are fitted by a single thread. Of more
    cutoffs than are ever visited, those that are visited alone are made into inputs.

    Raises:
        TrainingError: there is no cutoff to learn from, or the loss is not finite.
    """
    asked = own_parameters(DNNParameters, spec.parameters)
    pairs = training_pairs(panel, pipeline, _reach(pipeline, asked))
    if not len(pairs):
        raise TrainingError(
            f"Pipeline {pipeline.name}, model {spec.name}: no series is long enough to have a cutoff with "
            f"a season before it and a horizon of {pipeline.horizon} after it.",
            remedy="Widen `window_quarters`, or shorten `horizon`.",
        )
    visited = asked.max_steps * asked.batch_size
    if len(pairs) > visited:
        chosen = np.random.default_rng(pipeline.seed).choice(len(pairs), visited, replace=False)
        chosen.sort()
        pairs = pairs[chosen]
    inputs = _inputs(pipeline, spec, panel, pairs, asked)
    actual = targets(panel, pipeline, pairs) - levels(pipeline, panel, pairs, asked.level)
    center, scale = inputs.mean(axis=0), inputs.std(axis=0)
    # What never moved says nothing, and may move later by more than the fit can know.
    moves = scale > 1e-9 * np.maximum(np.abs(center), 1.0)
    inputs, center, scale = inputs[:, moves], center[moves], scale[moves]
    low, high = inputs.min(axis=0), inputs.max(axis=0)
    target_center, target_scale = actual.mean(axis=0), actual.std(axis=0)
    target_scale = np.where(target_scale > 0, target_scale, 1.0)
    scaled = ((inputs - center) / scale).astype(np.float32)
    wanted = ((actual - target_center) / target_scale).astype(np.float32)
    nets, curve = _fit_nets(pipeline, spec, asked, scaled, wanted)
    return Dense(
        nets=nets,
        moves=moves,
        # A trend may leave what was seen, by as much as was seen; a mistyped load may not leave the world.
        low=2 * low - high,
        high=2 * high - low,
        center=center,
        scale=scale,
        target_center=target_center,
        target_scale=target_scale,
        until=last_row(panel),
        curve=curve,
    )


def forecast_dense(
    pipeline: Pipeline, spec: ModelSpec, fitted: Dense, panel: Panel, issued: Issued
) -> FloatArray:
    """Forecasts of all pairs, ``[pairs, horizon, outputs]``.

    With ``refit`` the nets are fitted anew on the way, from what is known then.
    """
    asked = own_parameters(DNNParameters, spec.parameters)

    def fit(known: Panel) -> Dense:
        return fit_dense(pipeline, spec, known)

    def forecast(nets: Dense, part: Issued) -> FloatArray:
        inputs = _inputs(pipeline, spec, panel, part, asked)
        level = levels(pipeline, panel, part, asked.level)
        return _forecast(nets, inputs, max(len(pipeline.quantiles), 1)) + level[:, :, None]

    return forecast_anew(pipeline, panel, issued, asked.refit, fitted, fitted.until, fit, forecast)


def _reach(pipeline: Pipeline, asked: DNNParameters) -> int:
    return max(*asked.lags, asked.level) * pipeline.season


def _inputs(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, pairs: Issued, asked: DNNParameters
) -> FloatArray:
    calendar = calendar_ahead(pipeline, spec, pairs)[:, 0]
    return np.hstack([lagged_inputs(pipeline, spec, panel, pairs, asked), calendar])


def _forecast(nets: Dense, inputs: FloatArray, n_outputs: int) -> FloatArray:
    inputs = np.clip(inputs[:, nets.moves], nets.low, nets.high)
    scaled = ((inputs - nets.center) / nets.scale).astype(np.float32)
    total = np.zeros((len(inputs), len(nets.target_center) * n_outputs))
    for net in nets.nets:
        values = scaled
        for weights, offsets in net[:-1]:
            values = np.maximum(values @ weights + offsets, 0)
        weights, offsets = net[-1]
        total += values @ weights + offsets
    mean = (total / len(nets.nets)).reshape(len(inputs), -1, n_outputs)
    return mean * nets.target_scale[:, None] + nets.target_center[:, None]


def _fit_nets(
    pipeline: Pipeline, spec: ModelSpec, asked: DNNParameters, inputs: Single, wanted: Single
) -> tuple[tuple[Layers, ...], tuple[tuple[int, float], ...]]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fits = [
            _fit_net(pipeline, asked, inputs, wanted, pipeline.seed + place)
            for place in range(asked.n_estimators)
        ]
    finally:
        torch.set_num_threads(threads)
    losses = np.mean([losses for _, losses in fits], axis=0)
    if not np.isfinite(losses).all():
        raise TrainingError(
            f"Pipeline {pipeline.name}, model {spec.name}: the loss is not finite at step "
            f"{int(np.flatnonzero(~np.isfinite(losses))[0]) + 1}.",
            remedy="Lower learning_rate, set a transform, or look for extreme values in y.",
        )
    ends = [*range(_CURVE_STEPS, asked.max_steps, _CURVE_STEPS), asked.max_steps]
    begins = [0, *ends[:-1]]
    curve = [(e, float(losses[b:e].mean())) for b, e in zip(begins, ends, strict=True)]
    return tuple(layers for layers, _ in fits), tuple(curve)


def _fit_net(
    pipeline: Pipeline, asked: DNNParameters, inputs: Single, wanted: Single, seed: int
) -> tuple[Layers, FloatArray]:
    """One net, and its loss at each step."""
    import torch

    quantiles = torch.tensor(pipeline.quantiles or (0.5,), dtype=torch.float32)
    x, y = torch.from_numpy(inputs), torch.from_numpy(wanted)[:, :, None]
    losses = torch.empty(asked.max_steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torch.nn.Sequential()
        sizes = [x.shape[1], *asked.hidden_sizes]
        for before, after in zip(sizes, sizes[1:], strict=False):
            net.extend(
                [torch.nn.Linear(before, after), torch.nn.ReLU(), torch.nn.Dropout(asked.dropout)]
            )
        net.append(torch.nn.Linear(sizes[-1], wanted.shape[1] * len(quantiles)))
        descent = torch.optim.Adam(net.parameters(), lr=asked.learning_rate, fused=True)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(descent, asked.max_steps)
        for step, batch in enumerate(_batches(len(x), asked, seed)):
            descent.zero_grad(set_to_none=True)
            error = y[batch] - net(x[batch]).reshape(len(batch), -1, len(quantiles))
            # The absolute error, where the only quantile is the median.
            loss = 2 * torch.maximum(quantiles * error, (quantiles - 1) * error).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            descent.step()
            rate.step()
            losses[step] = loss.detach()
    layers = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
    found = tuple(
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in layers
    )
    return found, losses.numpy().astype(np.float64)


def _batches(count: int, asked: DNNParameters, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of each step's cutoffs: all of them in a random order, then in another."""
    rng = np.random.default_rng(seed)
    size = min(asked.batch_size, count)
    order = np.empty(0, dtype=np.int64)
    for _ in range(asked.max_steps):
        if len(order) < size:
            order = np.concatenate([order, rng.permutation(count)])
        yield order[:size]
        order = order[size:]
