"""What a batch of windows keeps of a model's insides until the gradients are there, in bytes.

Measured rather than derived, for every architecture keeps something else: two tiny batches go forward
through the model, what torch saves for the way back is counted, and the difference is taken as what each
further window adds. Costs milliseconds to tenths of a second and leaves weights and generators as they were.
"""

from __future__ import annotations

import logging
from typing import Any

from ts_forecast.training.allocator import LARGEST_MMAP_THRESHOLD
from ts_forecast.training.checkpoint import generators, set_generators

_FEW, _MORE = 2, 4
# What has a gradient has it beside the value while the way back passes it, and the operators have
# room of their own; measured (docs/measurements.md).
_BESIDE_SAVED = 1.5
# Without gradients only neighbouring layers are there at once, at most half of all.
_OF_INFERENCE = 0.5
# Freed pieces of more than glibc's threshold are kept for the next step, and what comes next does not always
# fit where they were; measured, too.
_OF_LARGEST = 2
_log = logging.getLogger(__name__)


def activation_bytes(model: Any, n_series: int, validated: bool) -> int:
    """At the peak of a training step, or of a validation, of a built model.

    Args:
        n_series: of a multivariate model's windows.
        validated: whether the fit has a validation window.
    """
    states = generators()
    try:
        few = _saved(model, _FEW, n_series)
        more = _saved(model, _MORE, n_series)
    except Exception as error:  # noqa: BLE001 — a forward of whatever kind; then the fit itself says
        _log.debug("What %s keeps of a window is not known: %s", type(model).__name__, error)
        return 0
    finally:
        set_generators(states)
        model.zero_grad(set_to_none=True)
    windows = float(max(1, model.windows_batch_size or 1))
    if validated:
        inferred = _OF_INFERENCE * max(0, model.inference_windows_batch_size or 0)
        windows = max(windows, inferred)
    total, largest = (
        _extrapolated(of_few, of_more, windows) for of_few, of_more in zip(few, more, strict=True)
    )
    holes = _OF_LARGEST * largest if largest > LARGEST_MMAP_THRESHOLD else 0.0
    return int(_BESIDE_SAVED * total + holes)


def _extrapolated(few: int, more: int, windows: float) -> float:
    per_window = max(0.0, (more - few) / (_MORE - _FEW))
    return max(0.0, few - _FEW * per_window) + per_window * windows


def _saved(model: Any, windows: int, n_series: int) -> tuple[int, int]:
    """Bytes that a forward saves, weights aside, each piece of memory once; and the largest piece."""
    import torch

    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    # Kept while it is counted: a piece that is given back would be another one's next.
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    was_training = model.training
    model.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model(_windows(model, windows, n_series))
        del output
    finally:
        model.train(was_training)
    sizes = [storage.nbytes() for storage in kept.values()]
    return sum(sizes), max(sizes, default=0)


def _windows(model: Any, windows: int, n_series: int) -> dict[str, Any]:
    """A batch as ``training_step`` hands it to the model, of ones."""
    import torch

    length, reach = model.input_size, model.input_size + model.h
    futures, pasts, statics = (
        len(names or ())
        for names in (model.futr_exog_list, model.hist_exog_list, model.stat_exog_list)
    )
    if model.MULTIVARIATE:
        shapes = {
            "futr_exog": (windows, futures, reach, n_series),
            "hist_exog": (windows, pasts, length, n_series),
            "stat_exog": (n_series, statics),
        }
    else:
        shapes = {
            "futr_exog": (windows, reach, futures),
            "hist_exog": (windows, length, pasts),
            "stat_exog": (windows, statics),
        }
    counts = {"futr_exog": futures, "hist_exog": pasts, "stat_exog": statics}
    width = n_series if model.MULTIVARIATE else 1
    # A gradient of the input is no part of a fit.
    batch: dict[str, Any] = {
        name: torch.ones(shape) if counts[name] else None for name, shape in shapes.items()
    }
    batch["insample_y"] = torch.ones(windows, length, width)
    batch["insample_mask"] = torch.ones(windows, length, width)
    return batch
