"""Checks of a slice: complete by its definition, and sane by its series' history.

One pass over its rows, in memory before they are published or in the database after; what the
definition calls for is computed anew from the data.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text
from sqlalchemy.orm import Session

from ts_forecast.checks.result import CheckResult
from ts_forecast.cutoffs import SlicePlan
from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

_EXTENT = text(
    "SELECT model_name AS model, unique_id, count(*) AS rows, "
    "count(*) FILTER (WHERE NOT (predicted_value > '-Infinity'::float8 "
    "AND predicted_value < 'Infinity'::float8)) AS not_finite, "
    "min(predicted_value) AS lowest, max(predicted_value) AS highest "
    "FROM predictions JOIN models USING (model_id) WHERE experiment_id = :experiment "
    "AND prediction_date >= :first AND prediction_date < :end GROUP BY model_name, unique_id"
)


def slice_extent(session: Session, experiment_id: int, quarter: Quarter) -> pd.DataFrame:
    """A slice by model and series: ``model, unique_id, rows, not_finite, lowest, highest``."""
    bounds = {"experiment": experiment_id, "first": quarter.start, "end": quarter.end}
    result = session.execute(_EXTENT, bounds)
    return pd.DataFrame([tuple(row) for row in result], columns=list(result.keys()))


def rows_extent(rows: pa.Table, names: Mapping[int, str]) -> pd.DataFrame:
    """The same of rows that are not published yet.

    Args:
        rows: in ``PREDICTION_SCHEMA``.
        names: of the models, by their id.
    """
    finite = pc.is_finite(rows["predicted_value"])
    table = pa.table(
        {
            "model_id": rows["model_id"],
            "unique_id": rows["unique_id"],
            "value": rows["predicted_value"],
            "is_wrong": pc.cast(pc.invert(finite), pa.int64()),
        }
    )
    grouped = table.group_by(["model_id", "unique_id"]).aggregate(
        [("value", "count"), ("is_wrong", "sum"), ("value", "min"), ("value", "max")]
    )
    return pd.DataFrame(
        {
            "model": [names[one] for one in grouped["model_id"].to_pylist()],
            "unique_id": grouped["unique_id"].to_pylist(),
            "rows": grouped["value_count"].to_numpy(),
            "not_finite": grouped["is_wrong_sum"].to_numpy(),
            "lowest": grouped["value_min"].to_numpy(),
            "highest": grouped["value_max"].to_numpy(),
        }
    )


def check_complete(
    extent: pd.DataFrame, panel: Panel, plan: SlicePlan, pipeline: Pipeline
) -> CheckResult:
    """Each model has as many rows of each series as the definition calls for."""
    issued = panel.issued(plan, pipeline)
    steps = np.minimum(plan.last_target, issued.cutoff + plan.horizon) - np.maximum(
        plan.first_target - 1, issued.cutoff
    )
    per_series = np.bincount(issued.series, np.maximum(steps, 0), minlength=panel.n_series)
    wanted = pd.Series(per_series, index=pd.Index(panel.unique_ids)).astype(np.int64)
    wanted = wanted[wanted > 0]
    names = [model.name for model in pipeline.models]
    index = pd.MultiIndex.from_product([names, wanted.index], names=["model", "unique_id"])
    should = pd.Series(np.tile(wanted.to_numpy(), len(names)), index=index)
    found = extent.set_index(["model", "unique_id"])["rows"]
    difference = found.sub(should, fill_value=0)
    missing, extra = -difference[difference < 0].sum(), difference[difference > 0].sum()
    figures: dict[str, float | int | str] = {
        "rows": int(found.sum()),
        "expected_rows": int(should.sum()),
        "missing_rows": int(missing),
        "extra_rows": int(extra),
    }
    if not missing and not extra:
        reason = f"{figures['rows']} rows, as the definition calls for"
        return CheckResult("complete_slice", True, reason, figures)
    model, unique_id = difference.index[int(np.argmax(difference.abs().to_numpy()))]
    reason = (
        f"{int(missing)} rows are missing and {int(extra)} too many, most of {model}, {unique_id!r}"
    )
    return CheckResult("complete_slice", False, reason, figures)


def check_values(extent: pd.DataFrame, panel: Panel, pipeline: Pipeline) -> CheckResult:
    """Every forecast is finite and within some ranges of what its series was seen to be.

    Args:
        panel: history and actual values as far as they are known; a series without one is not judged.
    """
    limit = pipeline.checks.max_range_multiple
    history = _ranges(panel)
    joined = extent.join(history, on="unique_id", how="inner")
    below = (joined["low"] - joined["lowest"]) / joined["scale"]
    above = (joined["highest"] - joined["high"]) / joined["scale"]
    beyond = np.maximum(np.maximum(below.to_numpy(), above.to_numpy()), 0.0)
    not_finite = int(extent["not_finite"].sum())
    exploding = joined[beyond > limit]
    figures: dict[str, float | int | str] = {
        "not_finite": not_finite,
        "exploding_series": int(exploding["unique_id"].nunique()),
        "worst_multiple": float(beyond.max()) if len(beyond) else 0.0,
    }
    problems = [f"{not_finite} forecasts are not finite"] if not_finite else []
    if len(exploding):
        worst = joined.iloc[int(np.argmax(beyond))]
        problems.append(
            f"{worst['model']} forecasts {worst['lowest']:.6g} to {worst['highest']:.6g} for "
            f"{worst['unique_id']!r}, whose history is {worst['low']:.6g} to {worst['high']:.6g}"
        )
    reason = "; ".join(problems) or (
        f"at most {figures['worst_multiple']:.2f} ranges outside of the history, {limit:g} are let "
        "through"
    )
    return CheckResult("sane_values", not problems, reason, figures)


def _ranges(panel: Panel) -> pd.DataFrame:
    """Lowest and highest observation of each series, and what counts as its range."""
    observed = pd.DataFrame({"series": panel.series_of_row, "y": panel.y}).dropna()
    by_series = observed.groupby("series")["y"]
    low, high = by_series.min(), by_series.max()
    spread = high - low
    size = low.abs().combine(high.abs(), max)
    # A constant series has no range: its size, or the largest range there is, stands in.
    overall = float(spread.max()) or 1.0
    scale = spread.where(spread > 0, size.where(size > 0, overall))
    index = pd.Index([panel.unique_ids[i] for i in low.index])
    return pd.DataFrame(
        {"low": low.to_numpy(), "high": high.to_numpy(), "scale": scale.to_numpy()}, index=index
    )
