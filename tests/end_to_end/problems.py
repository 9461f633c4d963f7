"""A small forecasting problem: three daily series with promotions and a gap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

TINY = {"max_steps": 3, "input_size": 14, "windows_batch_size": 32}


def content(**changes: Any) -> dict[str, Any]:
    """The pipeline file's content; two weeks ahead, every week: horizons overlap."""
    return {
        "source": {"files": "raw/shop.csv"},
        "frequency": "D",
        "horizon": 14,
        "step": 7,
        "start": "2022-01-01",
        "window_quarters": 4,
        "missing": "interpolate",
        "exogenous": {"future": ["promotion"], "calendar": ["weekday"]},
        "models": [
            {"model": "NHITS", "parameters": TINY},
            {"model": "MLP", "parameters": {**TINY, "hidden_size": 16}},
            {"model": "SeasonalNaive"},
        ],
        "levels": [80],
        "seed": 7,
    } | changes


def sales(seed: int = 0) -> pd.DataFrame:
    """Daily sales 2022-01-01 to 2023-12-31 of three products; one has a gap over a cutoff."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2022-01-01", "2023-12-31")
    weekly = 10 + 3 * np.sin(2 * np.pi * days.dayofweek.to_numpy() / 7)
    parts = []
    for number, unique_id in enumerate(["north", "south", "west"], start=1):
        promotion = (rng.random(len(days)) < 0.1).astype(float)
        y = number * weekly + 4 * promotion + rng.normal(scale=0.5, size=len(days))
        parts.append(
            pd.DataFrame({"unique_id": unique_id, "ds": days, "y": y, "promotion": promotion})
        )
    frame = pd.concat(parts, ignore_index=True)
    gap = (frame["unique_id"] == "south") & frame["ds"].between("2023-05-12", "2023-05-16")
    return frame[~gap].reset_index(drop=True)
