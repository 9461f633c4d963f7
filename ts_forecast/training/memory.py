"""Whether the host's memory suffices for a fit: an estimate, what is free, and the wait for it.

The estimate counts the dataset, a batch of whole series, the windows that the library copies, the weights
with their optimizer and, on CPU, what a batch of windows keeps of the model's insides (``activations``).
It was fitted to measured peaks (docs/measurements.md). What others on the host were granted and have not
taken yet is not free: ``memory_ledger``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import OutOfMemoryError
from ts_forecast.training.activations import activation_bytes
from ts_forecast.training.device import accelerator
from ts_forecast.training.memory_ledger import Ledger

_GROUP = Path("/sys/fs/cgroup")
_POLL_SECONDS = 1.0
_FLOAT = 4
# Weights, gradients and Adam's two moments.
_COPIES_OF_WEIGHTS = 4
# Measured: 1.2 to 1.5 times the dataset, 5 times a padded batch, 0.75 times copied windows.
_OF_DATASET, _OF_BATCH, _OF_WINDOWS = 1.5, 6.0, 1.0
# Lightning and the allocator's slack.
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
    activations: int = 0

    @property
    def total(self) -> int:
        """The estimate, with its safety factor."""
        parts = self.dataset + self.batch + self.windows + self.weights + self.activations
        return int(_SAFETY * (parts + _FLOOR))

    def __str__(self) -> str:
        parts = ("dataset", "batch", "windows", "weights", "activations")
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
        # On a GPU they are none of the host's.
        activations=activation_bytes(model, panel.n_series, validated > 0)
        if accelerator() == "cpu"
        else 0,
    )


@contextmanager
def reserved_memory(
    need: MemoryNeed,
    where: str,
    *,
    wait: float,
    measure: Callable[[], tuple[int, int]] | None = None,
    ledger: Ledger | None = None,
) -> Iterator[None]:
    """Hold as much memory as a fit needs for the time of the block; refuse where that cannot come.

    Other steps of the host may hold memory and give it back, so it waits for a while. Looking and
    reserving are one, whatever process looks: two steps never count on the same free memory.

    Args:
        where: names pipeline and model in errors.
        wait: seconds.
        measure: bytes available now and at most; default ``host_memory``.
        ledger: of what the host's processes have reserved; default: that of this user.

    Raises:
        OutOfMemoryError: more than the host (or the container) has at all, or not free in time.
    """
    measure, ledger = measure or host_memory, ledger or Ledger()
    end = time.monotonic() + wait
    is_told = False
    while True:
        with ledger.alone():
            available, limit = measure()
            promised = ledger.outstanding()
            reservation = None
            if need.total <= available - promised:
                reservation = ledger.reserve(need.total)
        if reservation is not None:
            break
        if need.total > limit or time.monotonic() >= end:
            raise _refused(need, where, available, limit, promised, wait)
        if not is_told:
            _log.info(
                "%s waits for memory: %s needed, %s free, %s of it promised to others.",
                where, _gib(need.total), _gib(available), _gib(promised),
            )  # fmt: skip
            is_told = True
        time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
    with reservation:
        yield


def _refused(
    need: MemoryNeed, where: str, available: int, limit: int, promised: int, wait: float
) -> OutOfMemoryError:
    reason = "at all" if need.total > limit else f"and no more came free within {wait:.0f} s"
    others = f", {_gib(promised)} of them promised to other fits," if promised else ""
    return OutOfMemoryError(
        f"{where}: the fit is estimated to need {_gib(need.total)} of host memory ({need}; a quarter "
        f"added for safety); {_gib(available)} of {_gib(limit)} are free{others} {reason}.",
        remedy="Set a smaller window_quarters, batch_size, windows_batch_size, input_size or val_size, "
        "give a multivariate model fewer series, or lower TS_FORECAST_SLOTS.",
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
