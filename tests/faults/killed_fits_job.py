"""The main job with checkpoints at every epoch; importable, since steps run in other processes."""

import os
from functools import partial

import dagster as dg

from assets.materialize import pipeline_job
from ts_forecast import side_by_side
from ts_forecast.training import quarter
from ts_forecast.training.options import FitOptions

# A minute apart in a deployment: longer than a test may take.
quarter.FitOptions = partial(FitOptions, checkpoint_seconds=0)  # type: ignore[misc, assignment]
# Help would come when its quarters are done.
side_by_side._PATIENCE = float(os.environ.get("PATIENCE_OF_STEPS", side_by_side._PATIENCE))


def shop_job() -> dg.JobDefinition:
    """All assets of the pipeline shop."""
    return pipeline_job("shop")
