"""Drawings for the UI: PNG in Markdown, drawn without a display.

What is drawn is chosen by the asset bodies; nothing here reads the database.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forecast_plot(
    frame: pd.DataFrame, unique_ids: Sequence[tuple[str, str]], title: str
) -> dg.MarkdownMetadataValue:
    """Forecast against actual of a few series.

    Args:
        frame: ``unique_id, ds, model, predicted_value, actual_value`` and, where the pipeline has
            levels, ``lower_bound, upper_bound``; one forecast for each (model, ds).
        unique_ids: the series to draw and what to call each (``worst``, ``median``, ``best``).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8 * len(unique_ids)), layout="constrained")
    axes = figure.subplots(len(unique_ids), 1, squeeze=False)[:, 0]
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
    axes[0].legend(fontsize=8, ncols=6, loc="upper left")
    figure.suptitle(title, fontsize=11)
    return _as_markdown(figure, title)


def loss_plot(curves: pd.DataFrame, title: str) -> dg.MarkdownMetadataValue:
    """Loss by training step.

    Args:
        curves: ``step, name, value``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.subplots()
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

    figure = Figure(figsize=(9, 3), layout="constrained")
    axis = figure.subplots()
    for unique_id, rows in frame.groupby("unique_id", observed=True):
        axis.plot(rows["ds"], rows["y"], lw=1, label=str(unique_id))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=3)
    figure.suptitle(title, fontsize=11)
    return _as_markdown(figure, title)


def _as_markdown(figure: "Figure", title: str) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
