"""The part of the pipeline file about what one training step asks a cluster for.

Schema only. ``assets`` puts it on the steps, the executor on Ray reads it there; on a single host
devices and slots are shared out by ``resources.gpu_executor`` instead.
"""

from __future__ import annotations

from pydantic import Field

from ts_forecast.pipeline_source import Strict


class Resources(Strict):
    """What a step that fits or forecasts asks of a Ray cluster."""

    num_cpus: int = Field(1, ge=1, le=1024, description="Cores, and the threads that it may use.")
    num_gpus: float = Field(
        0,
        ge=0,
        le=1,
        description="Of one GPU; 0.5 lets two steps share one. Only steps with neural models get any.",
    )
