"""Whether the host's memory suffices for a fit: an estimate, what is free, and the wait for it.

The estimate counts what grows with the data, which is what brings a host down: the dataset, a batch of
whole series, the windows that the library copies, the weights with their optimizer. It was fitted to
measured peaks (docs/measurements.md). What a batch of windows needs inside a model is not known before
it is tried; where that is too much, batches are halved (``batches``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import OutOfMemoryError

_GROUP = Path("/sys/fs/cgroup")
_POLL_SECONDS = 1.0
_FLOAT = 4
# Weights, gradients and Adam's two moments.
_COPIES_OF_WEIGHTS = 4
# Measured: 1.2 to 1.5 times the dataset, 5 times a padded batch, 0.75 times copied windows.
_OF_DATASET, _OF_BATCH, _OF_WINDOWS = 1.5, 6.0, 1.0
# Lightning, the allocator's slack and a batch of windows in a model of the default size.
_FLOOR = 128 * 2**20
_SAFETY = 1.25
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a fit adds to its process at its peak, by what takes them."""

    dataset: int
    batch: int
    windows: int
    weights: int

    @property
    def total(self) -> int:
        """The estimate, with its safety factor."""
        return int(_SAFETY * (self.dataset + self.batch + self.windows + self.weights + _FLOOR))

    def __str__(self) -> str:
        parts = ("dataset", "batch", "windows", "weights")
        return ", ".join(f"{part} {_gib(getattr(self, part))}" for part in parts)


def memory_need(model: Any, panel: Panel, n_columns: int, val_size: int = 0) -> MemoryNeed:
    """What the fit of a built model on a panel needs of the host.

    Args:
        n_columns: the target, the model's exogenous columns and the mask.
        val_size: steps of the validation window; its windows are copied, as are those of
            multivariate models, which take every series at once.
    """
    longest = int((panel.indptr[1:] - panel.indptr[:-1]).max())
    series = panel.n_series if model.MULTIVARIATE else min(model.batch_size, panel.n_series)
    length = model.input_size + model.h
    padded = longest + model.h + (model.input_size - 1 if model.start_padding_enabled else 0)
    steps = max(0, padded - length + 1) if model.MULTIVARIATE else 0
    validated = min(model.valid_batch_size, panel.n_series) * val_size
    weights = sum(weight.numel() for weight in model.parameters())
    return MemoryNeed(
        dataset=int(_OF_DATASET * panel.n_rows * n_columns * _FLOAT),
        batch=int(_OF_BATCH * series * padded * n_columns * _FLOAT),
        windows=int(_OF_WINDOWS * max(series * steps, validated) * length * n_columns * _FLOAT),
        weights=_COPIES_OF_WEIGHTS * weights * _FLOAT,
    )


def require_memory(
    need: MemoryNeed,
    where: str,
    *,
    wait: float,
    measure: Callable[[], tuple[int, int]] | None = None,
) -> None:
    """Return when as much memory is free as a fit needs; refuse where that cannot come.

    Other steps of the host may hold memory and give it back, so it waits for a while. Two steps that
    look at the same moment may both see the same memory free.

    Args:
        where: names pipeline and model in errors.
        wait: seconds.
        measure: bytes available now and at most; default ``host_memory``.

    Raises:
        OutOfMemoryError: more than the host (or the container) has at all, or not free in time.
    """
    measure = measure or host_memory
    end = time.monotonic() + wait
    is_told = False
    while True:
        available, limit = measure()
        if need.total <= available:
            return
        if need.total > limit or time.monotonic() >= end:
            break
        if not is_told:
            _log.info(
                "%s waits for memory: %s needed, %s free.", where, _gib(need.total), _gib(available)
            )
            is_told = True
        time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
    reason = "at all" if need.total > limit else f"and no more came free within {wait:.0f} s"
    raise OutOfMemoryError(
        f"{where}: the fit is estimated to need {_gib(need.total)} of host memory ({need}; a quarter "
        f"added for safety); {_gib(available)} of {_gib(limit)} are free {reason}.",
        remedy="Set a smaller window_quarters, batch_size or val_size, give a multivariate model fewer "
        "series, or lower TS_FORECAST_SLOTS.",
    )


def host_memory(group: Path = _GROUP) -> tuple[int, int]:
    """Bytes that can be had now, and that this process could have at most.

    The container's limit counts (control groups, version 2), without the page cache that the kernel
    would give up.
    """
    memory = psutil.virtual_memory()
    available, limit = int(memory.available), int(memory.total)
    try:
        ceiling = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        counters = dict(
            line.split() for line in (group / "memory.stat").read_text().splitlines() if line
        )
    except (OSError, ValueError):
        # No such file, or "max": no limit.
        return available, limit
    reclaimable = int(counters.get("inactive_file", 0)) + int(counters.get("active_file", 0))
    left = max(0, ceiling - max(0, used - reclaimable))
    return min(available, left), min(limit, ceiling)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
