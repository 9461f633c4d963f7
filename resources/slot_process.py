"""What runs on a lent slot: read the order, tie this process's life to its parent's, call the function.

A program of its own rather than a fork: the step that asks has threads and connections by then. The
other side is ``free_slots``.
"""

from __future__ import annotations

import pickle
import signal
import sys

from resources.forkserver_process import die_with_parent
from resources.free_slots import HeldSlot
from ts_forecast.logs.setup import install
from ts_forecast.settings import load_settings
from ts_forecast.training.device import agree_on_precision, limit_gpu_memory

# What a shell says of a program that SIGINT ended.
_INTERRUPTED = 130


def main(descriptor: int, parent: int) -> None:
    """Call the function of the order on stdin; the descriptor holds the slot's lock.

    Raises:
        SystemExit: it was interrupted.
    """
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = sys.stdin.buffer.read()
    device, function, arguments = pickle.loads(order)  # noqa: S301 — from our own parent
    settings = load_settings()
    install(settings)
    agree_on_precision(device.mixed)
    if device.is_gpu:
        limit_gpu_memory(settings.gpu_memory_limit)
    try:
        function(HeldSlot(device.identifier, descriptor), *arguments)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
