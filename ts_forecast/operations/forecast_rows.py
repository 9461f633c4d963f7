"""Forecast arrays as frames for people, scores of a holdout, and rows of slices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from ts_forecast.datasets.panel import Issued, Panel
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.predictions.slice import PREDICTION_SCHEMA
from ts_forecast.quarters import Quarter


def forecast_frame(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, issued: Issued, outputs: np.ndarray
) -> pd.DataFrame:
    """One row a forecast, with the bounds of the first level where the pipeline has levels."""
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
    places = {round(q, 6): i for i, q in enumerate(pipeline.quantiles)}
    frame["predicted_value"] = values[:, places.get(0.5, 0)]
    if pipeline.levels:
        level = pipeline.levels[0]
        frame[f"lower_{level}"] = values[:, places[round(0.5 - level / 200, 6)]]
        frame[f"upper_{level}"] = values[:, places[round(0.5 + level / 200, 6)]]
    return frame


def measure(
    frame: pd.DataFrame, pipeline: Pipeline, spec: ModelSpec, history: Panel
) -> pd.DataFrame:
    """Mean over series of MAE, RMSE, sMAPE and MASE on the holdout: ``horizon, model, metric, value``."""
    import utilsforecast.losses as losses

    known = frame.dropna(subset=["actual_value"]).rename(
        columns={"actual_value": "y", "predicted_value": spec.name}
    )
    training = history.to_frame([]).dropna(subset=["y"])
    training["unique_id"] = training["unique_id"].astype(str)
    scores = {
        "mae": losses.mae(known, [spec.name]),
        "rmse": losses.rmse(known, [spec.name]),
        "smape": losses.smape(known, [spec.name]),
        "mase": losses.mase(known, [spec.name], seasonality=pipeline.season, train_df=training),
    }
    means = {
        name: float(score[spec.name].replace([np.inf], np.nan).mean())
        for name, score in scores.items()
    }
    return pd.DataFrame(
        [
            {"horizon": pipeline.horizon, "model": spec.name, "metric": name, "value": value}
            for name, value in means.items()
            if np.isfinite(value)
        ]
    )


def slice_rows(frame: pd.DataFrame, model_id: int, pipeline: Pipeline) -> dict[Quarter, pa.Table]:
    """The forecasts as rows of slices, by the quarter of their target date."""
    level = pipeline.levels[0] if pipeline.levels else None
    lower = frame[f"lower_{level}"] if level else pd.Series(np.nan, index=frame.index)
    upper = frame[f"upper_{level}"] if level else pd.Series(np.nan, index=frame.index)
    rows = pd.DataFrame(
        {
            "model_id": model_id,
            "unique_id": frame["unique_id"].astype(str),
            "prediction_date": frame["ds"],
            "horizon": frame["step"],
            "predicted_value": frame["predicted_value"],
            "actual_value": frame["actual_value"],
            "lower_bound": lower,
            "upper_bound": upper,
            "confidence_level": np.where(lower.notna(), (level or 0) / 100, np.nan),
            "quantiles": None,
        }
    )
    quarters = rows["prediction_date"].dt.to_period("Q")
    return {
        Quarter(period.year, period.quarter): pa.Table.from_pandas(
            part, schema=PREDICTION_SCHEMA, preserve_index=False
        )
        for period, part in rows.groupby(quarters)
    }
