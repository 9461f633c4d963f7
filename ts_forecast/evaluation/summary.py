"""The distribution of scores over series, and skill against the baseline.

Pure. What a score is, is ``scoring``; storing summaries is ``quarter``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

# Skill compares errors, of which less is better; a bias or a coverage is none.
_ERRORS = frozenset(
    {"mae", "mse", "rmse", "mape", "smape", "mase", "rmsse", "mqloss", "scaled_crps"}
)
_GROUP = ["model", "horizon_bucket"]
SUMMARY_COLUMNS = (
    "model", "metric", "horizon_bucket",
    "min", "q1", "median", "mean", "q3", "max", "std", "series", "skill",
)  # fmt: skip


def summarize(scores: pd.DataFrame, metrics: Sequence[str], baseline: str | None) -> pd.DataFrame:
    """Condense scores over series.

    Args:
        scores: ``model, unique_id, horizon_bucket`` and a column for each metric, NaN where it is
            not defined for a series.
        metrics: the columns to condense.
        baseline: the model that skill is measured against; None for no skill.

    Returns:
        ``SUMMARY_COLUMNS``, one row for each model, metric and bucket for which some series has a
        score, in the order of ``metrics``. ``std`` is the sample's, NaN for one series. ``skill``
        is 1 - (mean of the model / mean of the baseline), both over the series for which both are
        defined; NaN for metrics that are no errors, and where the baseline makes none.
    """
    parts = []
    for metric in metrics:
        present = scores[[*_GROUP, "unique_id", metric]].dropna(subset=[metric])
        grouped = present.groupby(_GROUP, sort=True, observed=True)[metric]
        quantiles = grouped.quantile(np.array([0.0, 0.25, 0.5, 0.75, 1.0])).unstack()
        quantiles.columns = pd.Index(["min", "q1", "median", "q3", "max"])
        part = quantiles.assign(mean=grouped.mean(), std=grouped.std(), series=grouped.size())
        part["skill"] = _skill(present, metric, baseline)
        parts.append(part.reset_index().assign(metric=metric))
    if not parts:
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(SUMMARY_COLUMNS)]


def _skill(present: pd.DataFrame, metric: str, baseline: str | None) -> pd.Series | float:
    """Skill by model and bucket, indexed as the groups are."""
    if baseline is None or metric not in _ERRORS:
        return np.nan
    of_baseline = present[present["model"] == baseline].drop(columns="model")
    pairs = present.merge(of_baseline, on=["unique_id", "horizon_bucket"], suffixes=("", "_base"))
    means = pairs.groupby(_GROUP, sort=True, observed=True)[[metric, f"{metric}_base"]].mean()
    reference = means[f"{metric}_base"].where(means[f"{metric}_base"] > 0)
    return 1 - means[metric] / reference
