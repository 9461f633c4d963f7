"""A small forecasting problem on disk, and a deployment of it that runs as users run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.end_to_end.problems import content, sales
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.settings import Settings


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
