"""Where a fit runs: the accelerator that this process was given, and its share of cores and memory.

The GPU executor decides by setting ``CUDA_VISIBLE_DEVICES`` and the thread count before a step starts;
nothing here takes a device.
"""

from __future__ import annotations

import os
from typing import Literal

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
# What the executor said that ``precision: auto`` means on this host's devices.
_AGREED: list[Precision] = []


def accelerator() -> str:
    """``gpu`` if this process was given a CUDA device, else ``cpu``."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1"):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def mixed_precision(capability: tuple[int, int]) -> Precision:
    """The mixed precision of a GPU of some compute capability.

    bf16 counts where the hardware has it (8.0 and later), not where it is emulated.
    """
    return "bf16-mixed" if capability >= (8, 0) else "16-mixed"


def agree_on_precision(precision: Precision) -> None:
    """Have this process take ``precision: auto`` for what it is on all devices of the host.

    Not on its own device alone: a fingerprint is made before anybody knows which device a fit will get.
    """
    _AGREED[:] = [precision]


def resolved_precision(
    asked: Literal["full", "auto"], on_host: Precision | None = None
) -> Precision:
    """What a pipeline's ``precision`` means where a fit will run.

    Mixed precision is for GPUs: on CPU bf16 is many times slower.

    Args:
        on_host: what ``auto`` means to the steps of this host, where the caller is none of them;
            default: what it means in this process, on the device that it was given.
    """
    if asked == "full":
        return "32-true"
    if on_host is not None:
        return on_host
    if accelerator() == "cpu":
        return "32-true"
    if _AGREED:
        return _AGREED[0]
    import torch

    return mixed_precision(torch.cuda.get_device_capability())


def limit_gpu_memory(fraction: float) -> None:
    """Let this process allocate at most a fraction of its GPU's memory; on CPU, nothing.

    Initializes CUDA, so only a process that will not fork may call it.
    """
    if fraction < 1 and accelerator() == "gpu":
        import torch

        torch.cuda.set_per_process_memory_fraction(fraction)


def trainer_arguments() -> dict[str, object]:
    """Arguments of Lightning's trainer: one device, reproducible, and nothing that nobody reads."""
    return {
        "accelerator": accelerator(),
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "deterministic": "warn" if accelerator() == "gpu" else False,
    }
