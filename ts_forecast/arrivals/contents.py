"""What each quarter would hold if it were ingested now, told by the names of its stored files.

Reads the source; stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ts_forecast.datasets.quarter import quarter_frames, read_history, stored_name
from ts_forecast.datasets.readers import read_static
from ts_forecast.datasets.sql_rows import SourceItem
from ts_forecast.datasets.store import file_name
from ts_forecast.datasets.validation import History, QuarterReport, examine
from ts_forecast.errors import SourceError, StorageError, TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings

Parts = dict[str, str]


@dataclass(frozen=True)
class Contents:
    """The source, by quarter.

    Attributes:
        parts: of each quarter with an observation, file names as ``datasets.quarter.stored_parts``.
        problems: why quarters, or all of them, cannot be ingested.
    """

    parts: dict[Quarter, Parts]
    problems: tuple[str, ...]


def read_contents(settings: Settings, pipeline: Pipeline, paths: Sequence[SourceItem]) -> Contents:
    """What ingesting these files would store; a quarter that would be refused is a problem.

    Raises:
        StorageError: a store does not answer.
    """
    try:
        history = read_history(paths, pipeline)
        static = read_static(pipeline, settings)
        reports, problems = _reports(history, pipeline)
    except StorageError:
        raise
    except TsForecastError as error:
        return Contents({}, (" ".join(str(error).split()),))
    parts = {
        quarter: {
            part: file_name(stored_name(quarter, part), frame)
            for part, frame in quarter_frames(pipeline, history, static, quarter).items()
        }
        for quarter, report in reports.items()
        if report.observed
    }
    return Contents(parts, tuple(problems))


def _reports(
    history: History, pipeline: Pipeline
) -> tuple[dict[Quarter, QuarterReport], list[str]]:
    days: pd.Series = history.frame["ds"]
    if days.empty:
        return {}, []
    quarters = list(quarter_range(Quarter.of(days.min()), Quarter.of(days.max())))
    try:
        return examine(history, pipeline, quarters), []
    except SourceError:
        # One at a time: a gap in one keeps no other from being ingested.
        reports: dict[Quarter, QuarterReport] = {}
        problems = []
        for quarter in quarters:
            try:
                reports |= examine(history, pipeline, [quarter])
            except SourceError as error:
                problems.append(" ".join(str(error).split()))
        return reports, problems
