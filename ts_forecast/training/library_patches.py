"""Three repairs of neuralforecast, applied in one place.

- The order of exogenous columns comes from a ``set``, so that a seed gives another model in every
  process (``PYTHONHASHSEED``): sorted here, under any version.
- Every training step copies every window of every series and then uses a few hundred (upstream #783,
  #1357): here only the sampled ones are gathered. Losses and forecasts are identical; tests compare.
  It rewrites what the library does inside, so it is left out under a version it was not written for.
- Every training step hands its loss to Lightning's logger, which nobody reads and which takes a tenth
  of a small model's time; the library keeps the same number in ``train_trajectories``, where we read it.

``library_versions`` are part of every fingerprint, so a library that mends them changes nothing silently.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The versions whose `_create_windows` was read and compared.
WRITTEN_FOR = "3.3."
_PATCHED = "_ts_forecast_patched"
_log = logging.getLogger(__name__)


def apply_patches() -> None:
    """Patch neuralforecast's base model; a second call does nothing. Imports torch."""
    from neuralforecast.common._base_model import BaseModel

    if getattr(BaseModel, _PATCHED, False):
        return
    original, log_to_lightning = BaseModel._create_windows, BaseModel.log
    installed = version("neuralforecast")

    def create_windows(self: Any, batch: dict[str, Any], step: str) -> Any:
        can_gather = step == "train" and not self.MULTIVARIATE and self.h > 0
        if not can_gather or "sample_weight" in batch["temporal_cols"]:
            return original(self, batch, step)
        return _gathered_windows(self, batch)

    def exogenous_columns(self: Any, temporal_cols: Any) -> list[str]:
        categorical = {*self.hist_cat_exog_list, *self.futr_cat_exog_list}
        exogenous = {*self.hist_exog_list, *self.futr_exog_list}
        return sorted((set(temporal_cols.tolist()) & exogenous) - categorical)

    def log(self: Any, name: str, *arguments: Any, **options: Any) -> None:
        if name != "train_loss":
            log_to_lightning(self, name, *arguments, **options)

    if installed.startswith(WRITTEN_FOR):
        BaseModel._create_windows = create_windows
    else:
        _log.warning(
            "neuralforecast %s is not %sx: training copies every window, as the library does. "
            "Compare its _create_windows with training/library_patches.py.",
            installed,
            WRITTEN_FOR,
        )
    BaseModel._get_temporal_exogenous_cols = exogenous_columns
    BaseModel.log = log
    setattr(BaseModel, _PATCHED, True)


class LazyWindows:
    """All windows of a batch, gathered when they are indexed.

    Args:
        view: the unfolded batch ``[n_series, C, windows, L + h]``: a view, no copy.
    """

    def __init__(self, view: torch.Tensor) -> None:
        self._view = view.permute(0, 2, 3, 1)
        self.device = view.device

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        """Windows ``[len(index), L + h, C, 1]``."""
        windows = self._view.shape[1]
        return self._view[index // windows, index % windows].unsqueeze(-1)


def _gathered_windows(model: Any, batch: dict[str, Any]) -> Any:
    """What the library's ``_create_windows`` returns for training, with lazy windows."""
    import torch
    from torch.nn import functional

    columns, temporal = batch["temporal_cols"], batch["temporal"]
    if model.val_size + model.test_size > 0:
        temporal = temporal[:, :, : -model.val_size - model.test_size]
    temporal = model.padder_train(temporal)
    length = model.input_size + model.h
    if temporal.shape[-1] < length:
        raise ValueError(
            f"the longest series has {temporal.shape[-1]} steps, a window needs {length}: "
            "set a smaller input_size or start_padding_enabled"
        )
    view = temporal.unfold(dimension=-1, size=length, step=model.step_size)
    # The mask is 0 or 1: differences of its running sum count exactly.
    mask = temporal[:, columns.get_loc("available_mask")].double()
    seen = functional.pad(mask.cumsum(-1), (1, 0))
    starts = torch.arange(view.shape[2], device=temporal.device) * model.step_size
    middles = starts + model.input_size
    insample = seen[:, middles] - seen[:, starts]
    outsample = seen[:, starts + length] - seen[:, middles]
    least_in = max(1, int(model.input_size * model.min_insample_fraction * model.n_series))
    least_out = max(1, int(model.h * model.min_outsample_fraction * model.n_series))
    usable = ((insample >= least_in) & (outsample >= least_out)).flatten()
    if not usable.any():
        raise ValueError("no window of any series has enough observations to train on")
    static = batch.get("static", None)
    if static is not None:
        static = torch.repeat_interleave(static, repeats=view.shape[2], dim=0)
    indices = torch.nonzero(usable).squeeze(-1)
    return LazyWindows(view), static, batch.get("static_cols", None), indices, None, columns
