"""Checks of a quarter's stored observations: schema, duplicates, gaps, freshness.

Pure: the canonical frame in, results out. Bad sources were refused before (``datasets.validation``);
this judges what stands, whoever wrote it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ts_forecast.checks.result import CheckResult
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

_KEY = ["unique_id", "ds"]


def check_observations(
    frame: pd.DataFrame, pipeline: Pipeline, quarter: Quarter, *, now: pd.Timestamp
) -> list[CheckResult]:
    """All four checks of a quarter's rows.

    Args:
        frame: as ``datasets.store.load_frame`` gives it.
        now: naive UTC; nothing later can have been observed.
    """
    schema = check_schema(frame, pipeline, quarter)
    if not schema.passed:
        # The others would stumble over what is wrong already.
        return [schema]
    return [
        schema,
        check_duplicates(frame),
        check_gaps(frame, pipeline),
        check_freshness(frame, pipeline, quarter, now=now),
    ]


def check_schema(frame: pd.DataFrame, pipeline: Pipeline, quarter: Quarter) -> CheckResult:
    """Columns and types of the definition; timestamps of the grid and the quarter; no infinity."""
    values = ["y", *pipeline.exogenous.temporal]
    wanted = [*_KEY, *values]
    problems = []
    if absent := sorted(set(wanted) - set(frame.columns)):
        problems.append(f"without {', '.join(absent)}")
    if strange := sorted(set(frame.columns) - set(wanted)):
        problems.append(f"with {', '.join(strange)}, which the pipeline does not name")
    present = [name for name in values if name in frame]
    if wrong := [name for name in present if frame[name].dtype.kind != "f"]:
        problems.append(f"{', '.join(wrong)} is no number")
    off_grid = outside = 0
    if "ds" in frame and frame["ds"].dtype.kind == "M":
        ds = pd.DatetimeIndex(frame["ds"])
        off_grid = int((~pipeline.grid.on_grid(ds)).sum())
        first, end = pd.Timestamp(quarter.start), pd.Timestamp(quarter.end)
        outside = int(((ds < first) | (ds >= end)).sum())
        if off_grid or outside:
            problems.append(f"{off_grid} rows off the grid, {outside} outside of {quarter.label}")
    elif "ds" in frame:
        problems.append("ds is no timestamp")
    infinite = sum(int(np.isinf(frame[name]).sum()) for name in present if name not in wrong)
    if infinite:
        problems.append(f"{infinite} infinite values")
    return CheckResult(
        "schema",
        not problems,
        "; ".join(problems) or f"{len(wanted)} columns as the pipeline names them",
        {
            "rows": len(frame),
            "columns": len(frame.columns),
            "off_grid": off_grid,
            "outside": outside,
            "infinite": infinite,
        },
    )


def check_duplicates(frame: pd.DataFrame) -> CheckResult:
    """No (series, timestamp) stands twice."""
    twice = frame.duplicated(_KEY)
    count = int(twice.sum())
    reason = "every series and timestamp stands once"
    if count:
        first = frame.loc[twice].iloc[0]
        reason = f"{count} rows stand twice, first {first['unique_id']!r} at {first['ds']}"
    return CheckResult("duplicates", not count, reason, {"duplicates": count})


def check_gaps(frame: pd.DataFrame, pipeline: Pipeline) -> CheckResult:
    """The share of points between each series' first and last row that were not observed."""
    index = pipeline.grid.index(pd.DatetimeIndex(frame["ds"]))
    points = pd.DataFrame(
        {"unique_id": frame["unique_id"], "index": index, "is_seen": frame["y"].notna()}
    )
    seen = points[points["is_seen"]].groupby("unique_id")["index"].agg(["min", "max", "nunique"])
    span = (seen["max"] - seen["min"] + 1).to_numpy()
    missing = span - seen["nunique"].to_numpy()
    share = float(missing.sum() / span.sum()) if span.sum() else 0.0
    limit = pipeline.checks.max_missing_share
    reason = f"{int(missing.sum())} of {int(span.sum())} points without an observation"
    if missing.sum():
        worst = int(np.argmax(missing / span))
        reason += f", most in {seen.index[worst]!r} ({missing[worst] / span[worst]:.1%})"
    return CheckResult(
        "gaps",
        share <= limit,
        f"{reason}; {limit:.1%} is let through",
        {
            "missing_share": share,
            "missing": int(missing.sum()),
            "series_with_gaps": int((missing > 0).sum()),
        },
    )


def check_freshness(
    frame: pd.DataFrame, pipeline: Pipeline, quarter: Quarter, *, now: pd.Timestamp
) -> CheckResult:
    """How many steps the newest observation lies before the newest that could be there.

    That is the quarter's last target, the pipeline's end, or now, whichever is first.
    """
    limit = pipeline.checks.max_lag_steps or pipeline.horizon
    grid = pipeline.grid
    expected = min(
        pipeline.slice_plan(quarter).last_target, int(grid.index(pd.DatetimeIndex([now]))[0])
    )
    seen = frame[frame["y"].notna()]
    if seen.empty:
        return CheckResult("freshness", False, "no observation at all", {"series": 0})
    newest = seen.groupby("unique_id")["ds"].max()
    lags = np.maximum(expected - grid.index(pd.DatetimeIndex(newest)), 0)
    lag, stale = int(lags.min()), int((lags > limit).sum())
    reason = f"the newest observation is {newest.max()}, {lag} steps late"
    if stale:
        reason += f"; {stale} of {len(lags)} series are more than {limit} steps late"
    return CheckResult(
        "freshness",
        lag <= limit,
        reason,
        {"lag_steps": lag, "stale_series": stale, "series": len(lags), "limit_steps": limit},
    )
