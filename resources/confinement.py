"""A process and its device: it sees no other, and uses its share of the cores and of the memory.

Which device a process has is ``device_locks`` and ``free_slots``; what devices there are, ``devices``.
"""

from __future__ import annotations

import os
import sys

from resources.devices import Device
from ts_forecast.settings import Settings
from ts_forecast.training.device import agree_on_precision, limit_gpu_memory


def confine(device: Device, settings: Settings) -> None:
    """Let this process see only its device and use only its share of that and of the cores.

    CUDA reads its variables at first use, which no parent has made; the thread pools of a torch
    that was imported before the fork no longer look at theirs.
    """
    os.environ.update(device.environment)
    agree_on_precision(device.mixed)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(device.threads)
    if device.is_gpu:
        limit_gpu_memory(settings.gpu_memory_limit)
