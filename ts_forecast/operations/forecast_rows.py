"""Forecast arrays as frames for people, rows of slices, and scores of a holdout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.evaluation.scoring import ALL, level_bounds, metric_names, score_model
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.predictions.slice import PREDICTION_SCHEMA
from ts_forecast.quarters import Quarter


def forecast_frame(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, issued: Issued, outputs: np.ndarray
) -> pd.DataFrame:
    """One row a forecast.

    Args:
        outputs: ``[len(issued), horizon, n_outputs]``, of ``forecast_pairs``.

    Returns:
        ``horizon, model, unique_id, cutoff, ds, step, actual_value, predicted_value`` and
        ``lower_<level>, upper_<level>`` of every level; NaN where there is none.
    """
    steps = np.arange(1, pipeline.horizon + 1)
    targets = issued.cutoff[:, None] + steps[None, :]
    rows = panel.rows_at(issued.series[:, None], targets)
    actual = np.where(rows >= 0, panel.y[rows], np.nan)
    count = len(steps)
    frame = pd.DataFrame(
        {
            "horizon": pipeline.horizon,
            "model": spec.name,
            "unique_id": np.repeat(np.asarray(panel.unique_ids, object)[issued.series], count),
            "cutoff": np.repeat(panel.grid.timestamps(issued.cutoff), count),
            "ds": panel.grid.timestamps(targets.reshape(-1)),
            "step": np.tile(steps, len(issued)),
            "actual_value": actual.reshape(-1),
        }
    )
    values = outputs.reshape(-1, outputs.shape[2])
    places = {quantile: place for place, quantile in enumerate(pipeline.quantiles)}
    frame["predicted_value"] = values[:, places.get(0.5, 0)]
    for level in pipeline.levels:
        lower, upper = level_bounds(level)
        frame[f"lower_{level}"] = values[:, places[lower]]
        frame[f"upper_{level}"] = values[:, places[upper]]
    return frame


def slice_rows(frame: pd.DataFrame, model_id: int, pipeline: Pipeline) -> pa.Table:
    """The rows of ``forecast_frame`` in ``PREDICTION_SCHEMA``."""
    rows = pd.DataFrame(
        {
            "model_id": model_id,
            "unique_id": frame["unique_id"].astype(str),
            "prediction_date": frame["ds"],
            "horizon": frame["step"],
            "predicted_value": frame["predicted_value"],
            "actual_value": frame["actual_value"],
            "lower_bound": np.nan,
            "upper_bound": np.nan,
            "confidence_level": np.nan,
            "quantiles": None,
        }
    )
    if pipeline.levels:
        level = pipeline.levels[0]
        rows["lower_bound"] = frame[f"lower_{level}"]
        rows["upper_bound"] = frame[f"upper_{level}"]
        rows["confidence_level"] = np.where(rows["lower_bound"].notna(), level / 100, np.nan)
        values = frame[_quantile_columns(pipeline)].to_numpy()
        is_whole = np.isfinite(values).all(axis=1)
        arrays = [row if whole else None for row, whole in zip(values, is_whole, strict=True)]
        rows["quantiles"] = pd.Series(arrays, dtype=object)
    return pa.Table.from_pandas(rows, schema=PREDICTION_SCHEMA, preserve_index=False)


def by_quarter(rows: pa.Table) -> dict[Quarter, pa.Table]:
    """Rows by the quarter of their target date, oldest first."""
    periods = pd.DatetimeIndex(rows["prediction_date"].to_pandas()).to_period("Q")
    return {
        Quarter(period.year, period.quarter): rows.filter(pa.array(periods == period))
        for period in sorted(periods.unique())
    }


def measure(
    rows: pa.Table, pipeline: Pipeline, spec: ModelSpec, scales: pd.DataFrame
) -> pd.DataFrame:
    """Mean over series of every metric: ``model, horizon, metric, value``; undefined ones are left out.

    Args:
        rows: of ``slice_rows``; those with an actual value are measured.
        scales: of ``seasonal_scales``.
    """
    scores = score_model(rows, pipeline, scales)
    means = scores.loc[scores["horizon_bucket"] == ALL, list(metric_names(pipeline))].mean()
    means = means[np.isfinite(means)]
    return pd.DataFrame(
        {
            "model": spec.name,
            "horizon": pipeline.horizon,
            "metric": means.index,
            "value": means.to_numpy(),
        }
    )


def _quantile_columns(pipeline: Pipeline) -> list[str]:
    """Columns of ``forecast_frame`` in the order of ``Pipeline.quantiles``."""
    names = {0.5: "predicted_value"}
    for level in pipeline.levels:
        lower, upper = level_bounds(level)
        names |= {lower: f"lower_{level}", upper: f"upper_{level}"}
    return [names[quantile] for quantile in pipeline.quantiles]
