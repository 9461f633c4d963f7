"""Drawings for the UI: PNG in Markdown, drawn without a display.

What is drawn is chosen by the asset bodies; nothing here reads the database.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from ts_forecast.reports.drawing import as_base64_png, forecast_figure, mark_dates, set_margins

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forecast_plot(
    frame: pd.DataFrame, unique_ids: Sequence[tuple[str, str]], title: str
) -> dg.MarkdownMetadataValue:
    """Forecast against actual of a few series; see ``forecast_figure``."""
    return _as_markdown(forecast_figure(frame, unique_ids, title), title)


def loss_plot(curves: pd.DataFrame, title: str) -> dg.MarkdownMetadataValue:
    """Loss by training step.

    Args:
        curves: ``step, name, value``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3))
    axis = figure.subplots()
    set_margins(figure)
    for name, rows in curves.groupby("name"):
        axis.plot(rows["step"], rows["value"], lw=1, label=name)
    axis.set_xlabel("step")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    return _as_markdown(figure, title)


def history_plot(frame: pd.DataFrame, title: str) -> dg.MarkdownMetadataValue:
    """The observations of a few series.

    Args:
        frame: ``unique_id, ds, y``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3))
    axis = figure.subplots()
    set_margins(figure)
    mark_dates(axis)
    for unique_id, rows in frame.groupby("unique_id", observed=True):
        axis.plot(rows["ds"], rows["y"], lw=1, label=str(unique_id))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=3)
    figure.suptitle(title, fontsize=11)
    return _as_markdown(figure, title)


def _as_markdown(figure: "Figure", title: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{as_base64_png(figure)})")
