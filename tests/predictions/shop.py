"""A shop's days with promotions and visitors, a gap and a late series, and a model fitted on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.training.trainer import FittedModel, fit_model

QUARTER = Quarter(2015, 4)


def pipeline(model: Any, **changes: Any) -> Pipeline:
    content = {
        "name": "shop",
        "source": {"files": "shop.csv"},
        "frequency": "D",
        "horizon": 10,
        "step": 7,
        "start": "2015-01-01",
        "missing": "ffill",
        "levels": [80],
        "exogenous": {
            "future": ["promotion"],
            "historic": ["visitors"],
            "calendar": ["weekday", "month", "week"],
        },
        "models": [model],
    }
    return parse_pipeline(content | changes, origin="shop.yaml")


def history(days: str = "2015-12-31") -> pd.DataFrame:
    """Two series, one with a gap over a cutoff, and one that begins within the quarter."""
    rng = np.random.default_rng(2)
    dates = pd.date_range("2015-01-01", days)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "late"], len(dates)),
            "ds": np.tile(dates, 3),
            "y": rng.normal(size=3 * len(dates)).cumsum() + 50,
            "promotion": rng.normal(size=3 * len(dates)),
            "visitors": rng.normal(size=3 * len(dates)),
        }
    )
    gone = (frame["unique_id"] == "b") & frame["ds"].between("2015-11-06", "2015-11-10")
    early = (frame["unique_id"] == "late") & (frame["ds"] < "2015-10-20")
    return frame[~gone & ~early].reset_index(drop=True)


def fitted_model(pipe: Pipeline, frame: pd.DataFrame, quarter: Quarter = QUARTER) -> FittedModel:
    plan = pipe.slice_plan(quarter)
    panel = Panel.from_frame(frame, pipe).until(plan.fit_until).filled(pipe.missing)
    return fit_model(pipe, pipe.models[0], panel)
