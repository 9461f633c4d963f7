"""Batch sizes, and what becomes of them when memory runs out.

Pure: what counts as running out, and the next smaller sizes. Trying again is ``neural_fit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A window's batch any smaller is noise rather than a gradient.
_FLOORS = {
    "batch_size": 1,
    "valid_batch_size": 1,
    "windows_batch_size": 32,
    "inference_windows_batch_size": 32,
}
_OF_TRAINING = ("batch_size", "windows_batch_size")
# What a model that takes all windows at once (-1) is first brought down from.
_ALL, _ALL_WINDOWS = -1, 2048
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or on the host.

    torch has a type for it on GPUs only; on CPU it is a RuntimeError of the allocator.
    """
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    # torch.OutOfMemoryError is a RuntimeError, and its message begins so.
    return any(message in str(error).lower() for message in _MESSAGES)


def batch_sizes(
    model: Any, parameters: tuple[str, ...], *, validated: bool = False
) -> dict[str, int]:
    """The sizes that a built model will use, of those that its class can be given; -1: all at once.

    Args:
        validated: whether the fit has a validation window; only then do its batches count.
    """
    names = _FLOORS if validated else _OF_TRAINING
    return {name: int(getattr(model, name, 0) or _ALL) for name in names if name in parameters}


def halved(sizes: Mapping[str, int], n_series: int = 1) -> dict[str, int] | None:
    """Half of every size, each down to its floor; None if all are there already.

    Args:
        n_series: of a multivariate model, which takes all series at once whatever the size.

    >>> halved({"batch_size": 32, "windows_batch_size": 48})
    {'batch_size': 16, 'windows_batch_size': 32}
    >>> halved({"batch_size": 1, "windows_batch_size": 8}) is None
    True
    """
    smaller = {}
    for name, size in sizes.items():
        floor = max(_FLOORS[name], n_series if "windows" not in name else 1)
        now = size if size > 0 else _ALL_WINDOWS
        smaller[name] = min(now, max(floor, now // 2))
    return smaller if smaller != dict(sizes) else None
