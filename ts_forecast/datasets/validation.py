"""What concerns a pipeline's files together: claims about the future, restatements, gaps, bounds.

Pure: frames in, one frame and its counts out, or a refusal. Each file alone was judged by ``readers``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ts_forecast.datasets.panel import Panel
from ts_forecast.datasets.sql_rows import SourceItem, SqlRows
from ts_forecast.errors import SourceError
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import mark_of
from ts_forecast.quarters import Quarter

_FURTHEST_AHEAD = pd.Timedelta(hours=14)


@dataclass(frozen=True)
class History:
    """The canonical rows of all files, merged.

    Attributes:
        frame: sorted by (unique_id, ds), one row each; y is NaN where nothing was observed.
        restated: rows of a later file that took the place of an earlier file's.
        outside: rows before ``start`` or after what ``end`` and the horizon let through.
    """

    frame: pd.DataFrame
    restated: int
    outside: int


def check_claim(path: SourceItem, frame: pd.DataFrame, pipeline: Pipeline) -> None:
    """Refuse observations later than the file can know.

    The claim is the date that ``source.as_of`` finds in the file's name (its whole day), or else the
    file's modification time, in the zone that is furthest ahead: ``ds`` may be any zone's clock.

    Raises:
        SourceError: an observation lies after it, or the name has no such date.
    """
    pattern = pipeline.source.as_of
    if pattern is None:
        clock = _written_at(path)
        limit: pd.Timestamp | None = clock + _FURTHEST_AHEAD
        what = f"was last written at {clock:%Y-%m-%d %H:%M} UTC"
    else:
        match = re.search(pattern, path.name)
        try:
            limit = pd.Timestamp(match[1]) if match else None
        except ValueError:
            limit = None
        if limit is None:
            raise SourceError(
                f"{path}: source.as_of {pattern!r} finds no date in the file's name.",
                remedy="Rename the file or correct source.as_of.",
            )
        limit = (
            limit
            if limit != limit.normalize()
            else limit + pd.Timedelta("1D") - pd.Timedelta("1ns")
        )
        what = f"claims to run to {limit:%Y-%m-%d %H:%M}"
    late = frame["y"].notna() & (frame["ds"] > limit)
    if late.any():
        row = frame[late].iloc[0]
        raise SourceError(
            f"{path}, column {pipeline.source.target_column!r}: series {row['unique_id']!r} has an "
            f"observation at {row['ds']}, in the future of the file, which {what} "
            f"({int(late.sum())} such rows in all).",
            remedy="Leave the target empty in rows that only carry values known ahead.",
        )


def _written_at(path: SourceItem) -> pd.Timestamp:
    """When a file was last written, in UTC; now, if its store does not tell, and of a query."""
    mark = (0, 0) if isinstance(path, SqlRows) else mark_of(path)
    if mark is None:
        raise FileNotFoundError(f"{path}: there is no such file.")
    return pd.Timestamp(mark[1] or time.time_ns())


def merge(frames: Sequence[pd.DataFrame], pipeline: Pipeline) -> History:
    """One history of all files, in the files' order: a later row replaces an earlier one whole."""
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    total = len(frame)
    if len(frames) > 1:
        frame = frame.drop_duplicates(["unique_id", "ds"], keep="last")
    merged = len(frame)
    inside = frame["ds"] >= pd.Timestamp(pipeline.start)
    if pipeline.end is not None:
        # Rows after the end may carry what is known ahead for the last cutoffs, but no observation.
        end = pd.Timestamp(pipeline.end) + pd.Timedelta(days=1)
        ahead = pipeline.grid.index(pd.DatetimeIndex([end - pd.Timedelta("1ns")]))
        limit = pipeline.grid.timestamps(ahead + pipeline.horizon)[0]
        keep_ahead = limit if pipeline.exogenous.future else end - pd.Timedelta("1ns")
        inside &= frame["ds"] <= keep_ahead
        frame = frame.assign(y=frame["y"].where(frame["ds"] < end))
    frame = frame[inside].sort_values(["unique_id", "ds"], kind="stable", ignore_index=True)
    return History(frame=frame, restated=total - merged, outside=int((~inside).sum()))


@dataclass(frozen=True)
class QuarterReport:
    """What was counted in a quarter.

    Attributes:
        observed: values of y.
        missing: grid points between a series' first and last observation without a value of y.
        missing_exogenous: the same of exogenous values, columns together.
        series: series with an observation.
    """

    observed: int
    missing: int
    missing_exogenous: int
    series: int


def examine(
    history: History, pipeline: Pipeline, quarters: Sequence[Quarter]
) -> dict[Quarter, QuarterReport]:
    """Count each quarter's observations and gaps.

    Raises:
        SourceError: the policy is ``error`` and a quarter has a gap; names the first.
        DatasetError: there is no observation at all.
    """
    panel = Panel.from_frame(history.frame, pipeline)
    inside = panel.index <= panel.last_observed[panel.series_of_row]
    missing = inside & ~panel.observed
    named = len(pipeline.exogenous.temporal)
    unknown = np.isnan(panel.exogenous[:, :named]) & inside[:, None]
    ds = panel.ds
    reports = {}
    for quarter in quarters:
        rows = (ds >= pd.Timestamp(quarter.start)) & (ds < pd.Timestamp(quarter.end))
        if pipeline.missing == "error":
            _refuse_gaps(panel, pipeline, quarter, rows & (missing | unknown.any(axis=1)))
        reports[quarter] = QuarterReport(
            observed=int((panel.observed & rows).sum()),
            missing=int((missing & rows).sum()),
            missing_exogenous=int(unknown[rows].sum()),
            series=len(np.unique(panel.series_of_row[panel.observed & rows])),
        )
    return reports


def _refuse_gaps(
    panel: Panel,
    pipeline: Pipeline,
    quarter: Quarter,
    gaps: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> None:
    rows = np.flatnonzero(gaps)
    if not len(rows):
        return
    row = rows[0]
    columns = (
        ["y"]
        if np.isnan(panel.y[row])
        else [
            name
            for name, value in zip(panel.columns, panel.exogenous[row], strict=True)
            if np.isnan(value)
        ]
    )
    raise SourceError(
        f"Pipeline {pipeline.name}, {quarter.label}: series {panel.unique_ids[panel.series_of_row[row]]!r} "
        f"has no {columns[0]} at {panel.ds[row]}; {len(rows)} points are missing in all.",
        remedy="Complete the source, or set `missing: interpolate` or `missing: ffill`.",
    )
