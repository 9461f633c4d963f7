"""A small forecasting problem on disk, and a deployment of it that runs as users run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.settings import Settings

TINY = {"max_steps": 3, "input_size": 14, "windows_batch_size": 32}


@dataclass
class Problem:
    """Three daily series with promotions, a gap and its pipeline file."""

    folder: Path
    settings: Settings
    pipeline: Pipeline
    frame: pd.DataFrame

    def write(self, frame: pd.DataFrame) -> None:
        """Put the frame where the pipeline reads it."""
        raw = self.settings.data_dir / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        frame.to_csv(raw / "shop.csv", index=False)


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


@pytest.fixture
def make_problem(tmp_path: Path, settings: Settings) -> Callable[..., Problem]:
    """Build a problem with changes to its pipeline file."""

    def make(**changes: Any) -> Problem:
        file = tmp_path / "pipelines" / "shop.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(content(**changes)), encoding="utf-8")
        problem = Problem(
            folder=tmp_path, settings=settings, pipeline=load_pipeline(file), frame=sales()
        )
        problem.write(problem.frame)
        return problem

    return make


@pytest.fixture
def problem(make_problem: Callable[..., Problem]) -> Problem:
    """The problem as it stands in ``content``."""
    return make_problem()
