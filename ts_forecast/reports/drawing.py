"""Drawings of forecasts and errors, without a display; figures in, PNG bytes out.

Dagster's side (``assets.plots``) draws the same figures into its metadata.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 90
# Around the axes, in inches. Measuring every label instead (a constrained layout) doubles the time of
# a drawing, and a backfill makes thousands.
_LEFT, _RIGHT, _TOP, _BOTTOM, _BETWEEN = 0.75, 0.15, 0.6, 0.5, 0.55


def forecast_figure(
    frame: pd.DataFrame, unique_ids: Sequence[tuple[str, str]], title: str
) -> Figure:
    """Forecast against actual of a few series.

    Args:
        frame: ``unique_id, ds, model, predicted_value, actual_value`` and, where the pipeline has
            levels, ``lower_bound, upper_bound``; one forecast for each (model, ds).
        unique_ids: the series to draw and what to call each (``worst``, ``median``, ``best``).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8 * len(unique_ids)))
    axes = figure.subplots(len(unique_ids), 1, squeeze=False)[:, 0]
    set_margins(figure)
    for axis, (unique_id, role) in zip(axes, unique_ids, strict=True):
        series = frame[frame["unique_id"] == unique_id]
        actual = series.drop_duplicates("ds").sort_values("ds")
        axis.plot(actual["ds"], actual["actual_value"], color="black", lw=1.6, label="actual")
        for position, (model, rows) in enumerate(series.groupby("model", sort=True)):
            ordered = rows.sort_values("ds")
            color = f"C{position % 10}"
            axis.plot(ordered["ds"], ordered["predicted_value"], color=color, lw=1, label=model)
            if ordered["lower_bound"].notna().any():
                axis.fill_between(
                    ordered["ds"],
                    ordered["lower_bound"],
                    ordered["upper_bound"],
                    color=color,
                    alpha=0.12,
                    lw=0,
                )
        axis.set_title(f"{unique_id} ({role})", fontsize=10, loc="left")
        axis.grid(alpha=0.25)
        axis.margins(x=0.01)
        mark_dates(axis)
    axes[0].legend(fontsize=8, ncols=6, loc="upper left")
    figure.suptitle(title, fontsize=11)
    return figure


def horizon_figure(by_horizon: pd.DataFrame, metric: str) -> Figure:
    """Mean error by steps ahead.

    Args:
        by_horizon: index the buckets in order, a column for each model.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3))
    axis = figure.subplots()
    set_margins(figure)
    for model in by_horizon.columns:
        axis.plot(by_horizon.index.astype(str), by_horizon[model], marker="o", label=model)
    axis.set_xlabel("steps ahead")
    axis.set_ylabel(metric)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=6)
    return figure


def set_margins(figure: Figure) -> None:
    """Room for titles and labels around the figure's axes, which stand one below the other."""
    width, height = figure.get_size_inches()
    rows = len(figure.axes)
    each = (height - _TOP - _BOTTOM - _BETWEEN * (rows - 1)) / rows
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        top=1 - _TOP / height,
        bottom=_BOTTOM / height,
        hspace=_BETWEEN / each,
    )


def mark_dates(axis: Axes) -> None:
    """Dates below an axis of time, as short as they can be told apart."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def as_base64_png(figure: Figure) -> str:
    """The figure's PNG; the same figure gives the same text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
