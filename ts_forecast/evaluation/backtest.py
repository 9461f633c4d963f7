"""One number for a model's forecasts of a past window: arrays of ``forecast_pairs`` in, a mean out.

For choosing parameters and weighing models before anything is published; what is published is scored by
``quarter``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.evaluation.scoring import ALL, score_model
from ts_forecast.pipeline import Pipeline

FloatArray = npt.NDArray[np.float64]


def actual_values(panel: Panel, issued: Issued, horizon: int) -> FloatArray:
    """What was observed at every target, ``[len(issued), horizon]``; NaN where nothing was."""
    targets = issued.cutoff[:, None] + np.arange(1, horizon + 1)[None, :]
    rows = panel.rows_at(issued.series[:, None], targets)
    return np.where(rows >= 0, panel.y[rows], np.nan)


def mean_score(
    pipeline: Pipeline,
    metric: str,
    panel: Panel,
    issued: Issued,
    outputs: FloatArray,
    scales: pd.DataFrame,
) -> float:
    """The mean over series of a metric; NaN where it is not defined for any of them.

    Args:
        metric: one that a pipeline file can name, also if this one does not.
        panel: holds the targets' observations.
        outputs: ``[len(issued), horizon, n_outputs]``.
        scales: of ``seasonal_scales``, for MASE and RMSSE.
    """
    horizon = pipeline.horizon
    middle = pipeline.quantiles.index(0.5) if pipeline.quantiles else 0
    names = pa.array(np.asarray(panel.unique_ids, dtype=object)[np.repeat(issued.series, horizon)])
    actual = actual_values(panel, issued, horizon).reshape(-1)
    columns: dict[str, pa.Array] = {
        "unique_id": names.cast(pa.string()),
        "horizon": pa.array(np.tile(np.arange(1, horizon + 1, dtype=np.int32), len(issued))),
        "predicted_value": pa.array(outputs[:, :, middle].reshape(-1)),
        "actual_value": pa.array(actual, from_pandas=True),
    }
    if pipeline.quantiles and np.isfinite(outputs).all():
        columns["quantiles"] = pa.FixedSizeListArray.from_arrays(
            pa.array(outputs.reshape(-1)), len(pipeline.quantiles)
        ).cast(pa.list_(pa.float64()))
    # The metrics of quantiles are computed wherever there are levels.
    metrics = () if metric in ("mqloss", "scaled_crps") else (metric,)
    scores = score_model(
        pa.table(columns), pipeline.model_copy(update={"metrics": metrics}), scales
    )
    return float(scores.loc[scores["horizon_bucket"] == ALL, metric].mean())
