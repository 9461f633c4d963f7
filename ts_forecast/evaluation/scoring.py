"""Scores of models' forecasts, for each series and horizon bucket.

Pure: Arrow and arrays in, a frame out. Every loss comes from ``utilsforecast.losses``; here stands
only how rows are grouped and what a score is scaled by. Their distribution over series is
``summary``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ts_forecast.champion_rule import Metric
from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import EvaluationError
from ts_forecast.pipeline import Pipeline

ALL = "all"
"""The bucket of every step ahead."""

_BUCKETS = 4
_CHUNK_ROWS = 500_000
_FORECAST = "forecast"
_KEYS = ["unique_id", "horizon_bucket"]


@dataclass(frozen=True)
class HorizonBucket:
    """Steps ahead that are scored together, both ends included."""

    label: str
    first: int
    last: int


def horizon_buckets(horizon: int) -> tuple[HorizonBucket, ...]:
    """Quarters of a horizon; each step on its own up to four.

    >>> [bucket.label for bucket in horizon_buckets(24)]
    ['1-6', '7-12', '13-18', '19-24']
    >>> [bucket.label for bucket in horizon_buckets(5)]
    ['1-2', '3', '4', '5']
    """
    parts = np.array_split(np.arange(1, horizon + 1), min(horizon, _BUCKETS))
    return tuple(
        HorizonBucket(
            str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}", int(part[0]), int(part[-1])
        )
        for part in parts
    )


def metric_names(pipeline: Pipeline) -> tuple[str, ...]:
    """The columns of a score: the pipeline's metrics; with levels, those of its quantiles too."""
    if not pipeline.levels:
        return pipeline.metrics
    levels = tuple(f"coverage_{level}" for level in pipeline.levels)
    return (*pipeline.metrics, "mqloss", "scaled_crps", *levels)


def seasonal_scales(panel: Panel, season: int) -> pd.DataFrame:
    """What MASE and RMSSE divide by: the in-sample error of the seasonal naive forecast.

    Args:
        panel: the history, ending where the model's does; missing values are ignored.

    Returns:
        Index ``unique_id``; ``absolute`` (mean |y[t] - y[t - season]|) and ``squared`` (its mean
        square). NaN for a series without two observations a season apart.
    """
    import utilsforecast.losses as losses

    rows = np.arange(panel.n_rows)
    has_past = rows - season >= panel.indptr[panel.series_of_row]
    past = np.where(has_past, panel.y[np.maximum(rows - season, 0)], np.nan)
    frame = pd.DataFrame({"unique_id": panel.series_of_row, "y": panel.y, "past": past})
    frame = frame.dropna()
    scales = pd.DataFrame(
        {
            "absolute": losses.mae(frame, ["past"]).set_index("unique_id")["past"],
            "squared": losses.mse(frame, ["past"]).set_index("unique_id")["past"],
        }
    ).reindex(np.arange(panel.n_series))
    scales.index = pd.Index(panel.unique_ids, name="unique_id")
    return scales


def score_model(
    rows: pa.Table, pipeline: Pipeline, scales: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Score one model's forecasts: ``score_models``, whoever the rows say made them."""
    rows = rows.select([name for name in rows.column_names if name != "model_id"])
    rows = rows.append_column("model_id", pa.repeat(pa.scalar(0), rows.num_rows))
    return score_models(rows, pipeline, scales).drop(columns="model_id")


def score_models(
    rows: pa.Table, pipeline: Pipeline, scales: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Score the forecasts of models, all in one frame: the library's price is one for each call.

    Args:
        rows: ``model_id, unique_id, horizon, predicted_value, actual_value`` and, where the pipeline
            has levels, ``quantiles`` in the order of ``pipeline.quantiles``. Rows without an actual
            value are left out; a model without quantiles has no scores of them.
        scales: of ``seasonal_scales``; a series that it lacks has no MASE and no RMSSE.

    Returns:
        One row for each model, series and bucket that has an actual value (``all`` among the
        buckets), sorted: ``model_id, unique_id, horizon_bucket, observations`` and a column for each
        of ``metric_names(pipeline)``, NaN where the metric is not defined (a scale or all actuals
        are zero, for example). Percentages are fractions: MAPE 0.1 is 10 %, coverage 0.8 is 80 %.

    Raises:
        EvaluationError: the quantiles of a row are not as many as the pipeline's, or a horizon is
            not the pipeline's.
    """
    rows = rows.filter(pc.is_valid(rows["actual_value"]))
    names = metric_names(pipeline)
    columns = ["model_id", *_KEYS, "observations", *names]
    if not rows.num_rows:
        return pd.DataFrame({name: pd.Series(dtype=_dtype(name)) for name in columns})
    buckets = horizon_buckets(pipeline.horizon)
    parts: list[pd.DataFrame] = []
    labels = np.array([ALL, *(bucket.label for bucket in buckets)], dtype=object)
    for alike in _alike(rows):
        part, group, models, unique_ids = _grouped(alike)
        for start, stop in _chunks(group):
            frame = _arranged(part.slice(start, stop - start), group[start:stop], pipeline, buckets)
            scores = _losses_of(frame, pipeline)
            model, series = np.divmod(scores["unique_id"].to_numpy(), len(unique_ids))
            _scale(scores, pipeline, scales, unique_ids, series)
            scores["model_id"], scores["unique_id"] = models[model], unique_ids[series]
            parts.append(scores)
    scores = pd.concat(parts, ignore_index=True)
    scores = scores.sort_values(["model_id", *_KEYS], ignore_index=True)
    scores["horizon_bucket"] = labels[scores["horizon_bucket"].to_numpy() + 1]
    scores = scores.reindex(columns=columns)
    scores[list(names)] = scores[list(names)].where(np.isfinite(scores[list(names)]))
    return scores


def _dtype(name: str) -> str:
    return {
        "unique_id": "object",
        "horizon_bucket": "object",
        "observations": "int64",
        "model_id": "int64",
    }.get(name, "float64")


def _alike(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows of models that have quantiles, and of those that do not; without the column if so."""
    if "quantiles" not in rows.column_names:
        yield rows
        return
    bare = rows.filter(pc.is_null(rows["quantiles"]))["model_id"].unique()
    lacks = pc.is_in(rows["model_id"], value_set=bare)
    for part in (rows.filter(pc.invert(lacks)), rows.filter(lacks).drop_columns("quantiles")):
        if part.num_rows:
            yield part


def _grouped(
    rows: pa.Table,
) -> tuple[pa.Table, npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.object_]]:
    """The rows, each series of each model together, and the number of the group of each.

    The number is the place of the model times the number of series, plus that of the series: places in
    the last two that are returned, sorted.
    """
    model, models = _numbered(rows["model_id"])
    series, unique_ids = _numbered(rows["unique_id"])
    group = model * len(unique_ids) + series
    if (np.diff(group) < 0).any():
        order = np.argsort(group, kind="stable")
        rows, group = rows.take(pa.array(order)), group[order]
    return rows, group, models, unique_ids


def _numbered(values: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """The rank of each value among the different ones; those, sorted."""
    encoded = values.combine_chunks().dictionary_encode()
    plain = encoded.dictionary.to_pylist()
    found = np.asarray(plain, dtype=object if isinstance(plain[0], str) else np.int64)
    order = np.argsort(found)
    rank = np.empty(len(found), dtype=np.int64)
    rank[order] = np.arange(len(found))
    return rank[encoded.indices.to_numpy()], found[order]


def _chunks(series: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Bounds of chunks of rows that end where a series ends: they bound the memory."""
    ends = [*(np.flatnonzero(np.diff(series)) + 1), len(series)]
    start = 0
    for end in ends:
        if end - start >= _CHUNK_ROWS or end == len(series):
            yield start, int(end)
            start = int(end)


def _arranged(
    rows: pa.Table,
    series: npt.NDArray[np.int64],
    pipeline: Pipeline,
    buckets: Sequence[HorizonBucket],
) -> pd.DataFrame:
    """The rows as the library wants them, with small integers for series and buckets.

    Each row stands twice: in its bucket, and in -1, that of every step ahead.
    """
    horizon = rows["horizon"].to_numpy()
    if horizon.min() < 1 or horizon.max() > pipeline.horizon:
        raise EvaluationError(
            f"Pipeline {pipeline.name}: the slice holds horizons {horizon.min()} to "
            f"{horizon.max()}, the pipeline file says {pipeline.horizon}.",
            remedy="Materialize predictions again.",
        )
    ends = np.array([bucket.last for bucket in buckets])
    columns: dict[str, npt.NDArray[Any]] = {
        "unique_id": series,
        "horizon_bucket": np.searchsorted(ends, horizon).astype(np.int8),
        "y": rows["actual_value"].to_numpy(),
        _FORECAST: rows["predicted_value"].to_numpy(),
    }
    frame = pd.DataFrame(columns | _quantile_columns(rows, pipeline))
    return pd.concat([frame.assign(horizon_bucket=np.int8(-1)), frame], ignore_index=True)


def _quantile_columns(rows: pa.Table, pipeline: Pipeline) -> dict[str, npt.NDArray[Any]]:
    """A column for each quantile; none where the model has no quantiles."""
    names = _quantile_names(pipeline)
    if not names or "quantiles" not in rows.column_names or rows["quantiles"].null_count:
        return {}
    lists = rows["quantiles"].combine_chunks()
    if not pc.all(pc.equal(pc.list_value_length(lists), len(names))).as_py():
        raise EvaluationError(
            f"Pipeline {pipeline.name}: the slice holds other quantiles than the {len(names)} of "
            "the pipeline file.",
            remedy="Materialize predictions again.",
        )
    values = lists.flatten().to_numpy().reshape(-1, len(names))
    return {name: values[:, place] for place, name in enumerate(names)}


def _quantile_names(pipeline: Pipeline) -> list[str]:
    """Columns of ``Pipeline.quantiles``, called as the library calls the bounds of levels."""
    names = {0.5: f"{_FORECAST}-median"}
    for level in pipeline.levels:
        low, high = level_bounds(level)
        names |= {low: f"{_FORECAST}-lo-{level}", high: f"{_FORECAST}-hi-{level}"}
    return [names[probability] for probability in pipeline.quantiles]


def _losses_of(frame: pd.DataFrame, pipeline: Pipeline) -> pd.DataFrame:
    """Every unscaled loss, for each series and bucket."""
    import utilsforecast.losses as losses

    # The library groups by series and by one further column, which it calls the cutoff.
    keys, further = _KEYS, "horizon_bucket"
    scores = frame.groupby(keys, sort=True).size().rename("observations").to_frame()

    def add(name: str, result: pd.DataFrame, column: str = _FORECAST) -> None:
        scores[name] = result.set_index(keys)[column]

    for name in _base_losses(pipeline.metrics):
        add(name, getattr(losses, name)(frame, models=[_FORECAST], cutoff_col=further))
    quantiles = _quantile_names(pipeline)
    if quantiles and quantiles[0] in frame:
        models, probabilities = {_FORECAST: quantiles}, np.array(pipeline.quantiles)
        for name, loss in (("mqloss", losses.mqloss), ("scaled_crps", losses.scaled_crps)):
            add(name, loss(frame, models=models, quantiles=probabilities, cutoff_col=further))
        # Its norm is the sum of |y|; without demand the library divides by the smallest float.
        peak = frame[keys].assign(peak=frame["y"].abs()).groupby(keys)["peak"].max()
        scores.loc[peak == 0, "scaled_crps"] = np.nan
        for level in pipeline.levels:
            covered = losses.coverage(frame, models=[_FORECAST], level=level, cutoff_col=further)
            add(f"coverage_{level}", covered)
    return scores.reset_index()


def level_bounds(level: int) -> tuple[float, float]:
    """The probabilities of a level's bounds, as they stand in ``Pipeline.quantiles``.

    >>> level_bounds(80)
    (0.1, 0.9)
    """
    tail = round(0.5 - level / 200, 6)
    return tail, round(1 - tail, 6)


def _base_losses(metrics: Sequence[Metric]) -> list[str]:
    """The losses that are computed from rows: those asked for, and what the scaled ones need."""
    needed = {"mase": "mae", "rmsse": "mse"}
    return sorted({needed.get(name, name) for name in metrics})


def _scale(
    scores: pd.DataFrame,
    pipeline: Pipeline,
    scales: pd.DataFrame | None,
    unique_ids: npt.NDArray[np.object_],
    series: npt.NDArray[np.int64],
) -> None:
    """Add MASE and RMSSE, which the library defines as a loss over the seasonal naive's.

    Args:
        series: the place of each score's series in ``unique_ids``.
    """
    if not {"mase", "rmsse"} & set(pipeline.metrics) or scales is None:
        return
    of_row = scales.reindex(unique_ids).iloc[series]
    with np.errstate(divide="ignore", invalid="ignore"):
        if "mase" in pipeline.metrics:
            scores["mase"] = scores["mae"].to_numpy() / of_row["absolute"].to_numpy()
        if "rmsse" in pipeline.metrics:
            scores["rmsse"] = np.sqrt(scores["mse"].to_numpy() / of_row["squared"].to_numpy())
