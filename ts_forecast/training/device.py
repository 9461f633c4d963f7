"""Where a fit runs: the accelerator that this process was given, and its share of the cores.

The GPU executor decides by setting ``CUDA_VISIBLE_DEVICES`` and the thread count before a step starts;
nothing here takes a device.
"""

from __future__ import annotations

import os


def accelerator() -> str:
    """``gpu`` if this process was given a CUDA device, else ``cpu``."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1"):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


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
