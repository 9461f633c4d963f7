"""Drift of a quarter's columns against the window that its models are fitted on.

Where the window holds a year, against the same quarter of its years alone: a winter is unlike a year, and
like the winter before it. A shorter window is compared whole, and the result says so.

The population stability index (PSI) over the window's deciles, or over its values where they are few.
Values are standardized for each series by the window's mean and deviation, so that large series do not
hide small ones. Under no drift PSI / (1/n + 1/m) is chi-squared with one degree of freedom less than
there are bins (Yurdakul 2018): what such noise explains is let through, however small the limit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.checks.result import CheckResult
from ts_forecast.datasets.panel import Panel
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter

_BINS = 10
_FEW_VALUES = 20
# A bin that one side lacks would make the index infinite: half an observation stands in it.
_EMPTY = 0.5
_CONFIDENCE = 0.99

FloatArray = npt.NDArray[np.float64]


def check_drift(window: Panel, frame: pd.DataFrame, pipeline: Pipeline) -> CheckResult:
    """Compare ``y`` and every exogenous column of the source with the window.

    Args:
        window: as ``training.quarter.training_history`` gives it.
        frame: the quarter's rows; series without rows to compare with are left out.
    """
    from scipy.stats import wasserstein_distance

    is_compared, compared = _reference(window, frame)
    series_of_row = window.series_of_row[is_compared]
    codes = pd.Index(window.unique_ids).get_indexer(pd.Index(frame["unique_id"].astype(object)))
    figures: dict[str, float | int | str] = {"compared_with": compared}
    worst: tuple[float, str] = (0.0, "")
    for name in ("y", *pipeline.exogenous.temporal):
        before = window.y if name == "y" else window.exogenous[:, window.columns.index(name)]
        old, new = _standardized(
            before[is_compared], series_of_row, frame[name].to_numpy(dtype=np.float64), codes
        )
        if not len(old) or not len(new):
            continue
        psi, noise = stability_index(old, new)
        figures[f"psi_{name}"] = psi
        figures[f"wasserstein_{name}"] = float(wasserstein_distance(old, new))
        figures[f"limit_{name}"] = max(pipeline.checks.max_psi, noise)
        worst = max(worst, (psi / max(pipeline.checks.max_psi, noise), name))
    excess, name = worst
    if not name:
        reason = f"nothing to compare: no series of the quarter is in {compared}"
        return CheckResult("drift", True, reason, figures)
    reason = (
        f"{name} has a stability index of {figures[f'psi_{name}']:.3f} against {compared}, "
        f"{figures[f'limit_{name}']:.3f} is let through"
    )
    return CheckResult("drift", excess <= 1, reason, figures)


def _reference(window: Panel, frame: pd.DataFrame) -> tuple[npt.NDArray[np.bool_], str]:
    """Which rows of the window are compared with, and what people call them."""
    ds = window.ds
    quarter = Quarter.of(frame["ds"].min())
    is_season = np.asarray(ds.quarter == quarter.number)
    if not is_season.any() or ds.min() > _first_step(window, quarter.shift(-4)):
        return np.ones(len(ds), dtype=bool), "the whole window, which holds less than a year"
    years = sorted(set(ds[is_season].year))
    return is_season, ", ".join(Quarter(year, quarter.number).label for year in years)


def _first_step(window: Panel, quarter: Quarter) -> pd.Timestamp:
    first = window.grid.first_from(pd.Timestamp(quarter.start))
    return window.grid.timestamps(np.array([first]))[0]


def stability_index(old: FloatArray, new: FloatArray) -> tuple[float, float]:
    """PSI of two samples, and what noise alone reaches once in a hundred times.

    >>> sample = np.arange(1000.0)
    >>> round(stability_index(sample, sample)[0], 6)
    0.0
    >>> stability_index(sample, sample + 300)[0] > 1
    True
    """
    from scipy.stats import chi2

    values = np.unique(old)
    if len(values) <= _FEW_VALUES:
        # Between the values, each of them a bin, and around them: others are strangers.
        room = np.diff(values).min() / 2 if len(values) > 1 else 0.5
        inner = (values[1:] + values[:-1]) / 2
        edges = np.concatenate([[values[0] - room], inner, [values[-1] + room]])
    else:
        edges = np.unique(np.quantile(old, np.linspace(0, 1, _BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1)
        for sample in (old, new)
    ]
    is_used = counts[0] + counts[1] > 0
    p, q = (np.maximum(count[is_used], _EMPTY) / count.sum() for count in counts)
    index = float(((q - p) * np.log(q / p)).sum())
    noise = chi2.ppf(_CONFIDENCE, max(int(is_used.sum()) - 1, 1)) * (1 / len(old) + 1 / len(new))
    return index, float(noise)


def _standardized(
    old: FloatArray, old_series: npt.NDArray[np.int64], new: FloatArray, new_series: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Both samples in deviations of the old one, by series; without what is missing."""
    codes = np.asarray(new_series)
    is_old = np.isfinite(old)
    is_new = np.isfinite(new) & (codes >= 0)
    old, old_series = old[is_old], old_series[is_old]
    new, codes = new[is_new], codes[is_new]
    if not len(old):
        return old, new
    count = int(max(old_series.max(), codes.max() if len(codes) else 0)) + 1
    seen = np.maximum(np.bincount(old_series, minlength=count), 1)
    mean = np.bincount(old_series, old, minlength=count) / seen
    squares = np.bincount(old_series, (old - mean[old_series]) ** 2, minlength=count)
    deviation = np.sqrt(squares / seen)
    # A constant stays what it is: any other value is a shift.
    deviation = np.where(deviation > 0, deviation, 1.0)
    is_known = np.isin(codes, old_series)
    new, codes = new[is_known], codes[is_known]
    scaled = np.round((old - mean[old_series]) / deviation[old_series], 9)
    return scaled, np.round((new - mean[codes]) / deviation[codes], 9)
