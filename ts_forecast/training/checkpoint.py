"""Checkpoints of a fit, so that one that was killed goes on where it was.

At the end of an epoch (every series was seen once) the weights, the optimizer, its schedule, the
counters, the curves, the best weights and the generators' states are written; between epochs nothing
else is alive. A fit that goes on from there takes the same batches and the same windows, and on CPU
ends at the same bits. What happened after the last written epoch is made again.

Lightning's own way back (``ckpt_path``) does not draw the next epoch's order of series from the
restored generator, so its resumed fits end elsewhere; here the counters are set before the first
epoch begins, and the loops never know.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from ts_forecast.training.best_weights import BestWeights

_FILE = "fit.ckpt"
# Raise it when the file's content changes.
_FORMAT = 1
_log = logging.getLogger(__name__)


class Checkpoint:
    """Writes checkpoints of one fit into its folder, and restores from one.

    Args:
        mark: what the fit was asked for; a file with another mark is not used.
        seconds: at least so long between two.
    """

    def __init__(
        self, folder: Path, mark: dict[str, int], seconds: float, best: BestWeights
    ) -> None:
        self._path = folder / _FILE
        self._mark, self._seconds, self._best = mark, seconds, best
        self._written = time.monotonic()
        self.resumed_at: int | None = None

    def restore(self, trainer: Any, model: Any) -> None:
        """Put trainer and model where the checkpoint left them; called as training starts."""
        state = read_checkpoint(self._path.parent)
        if state is None or state["mark"] != self._mark:
            return
        model.load_state_dict(state["weights"])
        model.train_trajectories[:] = state["train_trajectories"]
        model.valid_trajectories[:] = state["valid_trajectories"]
        trainer.optimizers[0].load_state_dict(state["optimizer"])
        for config, saved in zip(trainer.lr_scheduler_configs, state["schedules"], strict=True):
            config.scheduler.load_state_dict(saved)
        trainer.precision_plugin.load_state_dict(state["precision"])
        for callback, saved in zip(_early_stopping(trainer), state["stopping"], strict=True):
            callback.load_state_dict(saved)
        self._best.load_state_dict(state["best"])
        for progress, saved in zip(_counters(trainer), state["counters"], strict=True):
            progress.load_state_dict(saved)
        # Written while the epoch was being closed.
        trainer.fit_loop.epoch_progress.increment_completed()
        trainer.fit_loop.epoch_loop._batches_that_stepped = state["stepped"]
        set_generators(state["generators"])
        self.resumed_at = trainer.global_step
        _log.info("The fit goes on from step %d.", self.resumed_at)

    def write(self, trainer: Any, model: Any) -> None:
        """Write a checkpoint if it is time; called as an epoch ends."""
        if time.monotonic() - self._written < self._seconds:
            return
        import torch

        state = {
            "format": _FORMAT,
            "mark": self._mark,
            "weights": model.state_dict(),
            "train_trajectories": list(model.train_trajectories),
            "valid_trajectories": list(model.valid_trajectories),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedules": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
            "precision": trainer.precision_plugin.state_dict(),
            "stopping": [callback.state_dict() for callback in _early_stopping(trainer)],
            "best": self._best.state_dict(),
            "counters": [progress.state_dict() for progress in _counters(trainer)],
            "stepped": trainer.fit_loop.epoch_loop._batches_that_stepped,
            "generators": generators(),
        }
        part = self._path.with_name(f"{_FILE}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            torch.save(state, part)
            os.replace(part, self._path)
        except OSError as error:
            # A full disk costs the checkpoint, not the fit.
            part.unlink(missing_ok=True)
            _log.warning("A checkpoint could not be written to %s: %s", self._path.parent, error)
        self._written = time.monotonic()


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What a killed fit left in its folder; None if nothing that can be used."""
    import torch

    path = folder / _FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 — a damaged file raises all kinds
        _log.warning("The checkpoint %s cannot be read, the fit begins anew: %s", path, error)
        return None
    return state if state.get("format") == _FORMAT else None


def remove_checkpoint(folder: Path) -> None:
    """Remove a fit's folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _counters(trainer: Any) -> list[Any]:
    loop = trainer.fit_loop
    return [
        loop.epoch_progress,
        loop.epoch_loop.batch_progress,
        loop.epoch_loop.scheduler_progress,
        loop.epoch_loop.automatic_optimization.optim_progress,
    ]


def _early_stopping(trainer: Any) -> list[Any]:
    return list(trainer.early_stopping_callbacks)


def generators() -> dict[str, Any]:
    """The states of all generators that a fit draws from."""
    import torch

    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if _on_gpu() else None,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_generators(state: dict[str, Any]) -> None:
    """Put the generators back into the states of ``generators``."""
    import torch

    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and _on_gpu():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def _on_gpu() -> bool:
    """Whether this process has used CUDA; asking does not begin to."""
    import torch

    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
