"""Where a fit runs: the accelerator that this process was given, and its share of cores and memory.

The GPU executor decides by setting ``CUDA_VISIBLE_DEVICES`` and the thread count before a step starts;
nothing here takes a device.
"""

from __future__ import annotations

import os
from typing import Literal

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def accelerator() -> str:
    """``gpu`` if this process was given a CUDA device, else ``cpu``."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1"):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def resolved_precision(asked: Literal["full", "auto"]) -> Precision:
    """What a pipeline's ``precision`` means on this process's device.

    Mixed precision is for GPUs: on CPU bf16 is many times slower. bf16 counts where the hardware has
    it (compute capability 8.0 and later), not where it is emulated.
    """
    if asked == "full" or accelerator() == "cpu":
        return "32-true"
    import torch

    return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "16-mixed"


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
