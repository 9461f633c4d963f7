"""Whether a pipeline file is right, and its source has the columns that it names."""

from __future__ import annotations

from pathlib import Path

from ts_forecast.datasets.readers import read_source, read_static, source_files
from ts_forecast.errors import TsForecastError
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.settings import Settings


def check_pipeline_file(path: Path, settings: Settings) -> str | None:
    """What is wrong with a pipeline file or its source files, in one line; None if nothing is."""
    try:
        pipeline = load_pipeline(path)
        for file in source_files(pipeline, settings):
            read_source(file.path, pipeline)
        read_static(pipeline, settings)
    except TsForecastError as error:
        return " ".join(str(error).split())
    return None
