"""All cutoffs of a quarter in one pass, against one ``predict()`` a cutoff.

``python -m benchmarks.inference --model NHITS --model DLinear --days 730`` fits models for a moment on
made-up daily sales (``--hourly``: hourly ones) and forecasts from every day of a quarter, once with
``forecast_pairs`` and once with NeuralForecast's own ``predict()`` from cutoffs spread over the quarter:
with the whole history up to the cutoff, as one calls it, and with the last window alone, the least that
one can hand it. Prints seconds, the ratio and the largest difference of the forecasts. Of ``predict()``,
a sample of the cutoffs is timed and multiplied out. What a model has to compute for each window both
sides pay for alike; the longer the history, the more ``predict()`` does besides.
"""

from __future__ import annotations

import time
import warnings
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from ts_forecast.datasets.issued import Issued
from ts_forecast.datasets.panel import Panel
from ts_forecast.model_catalogue import catalogue
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter
from ts_forecast.training.trainer import FittedModel, fit_model

_QUARTER = Quarter(2024, 4)
_EXOGENOUS = {"future": ["promotion"], "calendar": ["weekday"]}
console = Console()


def main(
    series: Annotated[int, typer.Option(min=1, help="How many series.")] = 1000,
    days: Annotated[
        int, typer.Option(min=200, help="Days of history, the quarter included.")
    ] = 730,
    hourly: Annotated[bool, typer.Option("--hourly", help="Hours instead of days.")] = False,
    horizon: Annotated[int, typer.Option(min=1, help="Days ahead, or hours.")] = 14,
    model: Annotated[
        list[str] | None, typer.Option(help="A univariate neural model; may be repeated.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="On how many cutoffs predict() is timed.")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 1,
) -> None:
    """Time both for each model and print a table."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    unit = "hours" if hourly else "days"
    title = f"{series} series x {days} days, {horizon} {unit} ahead, threads: {threads}"
    table = Table(title=title)
    for heading in ("model", "way", "seconds", "ratio", "largest difference"):
        table.add_column(heading, justify="left" if heading in ("model", "way") else "right")
    sales = _sales(series, days, hourly)
    for name in model or ["NHITS"]:
        _measure(table, _pipeline(name, horizon, hourly), sales, sample)
    console.print(table)


def _measure(table: Table, pipeline: Pipeline, sales: pd.DataFrame, sample: int) -> None:
    """Three rows: ours, and ``predict()`` from each cutoff in two ways."""
    panel = Panel.from_frame(sales, pipeline)
    plan = pipeline.slice_plan(_QUARTER)
    issued = panel.issued(plan, pipeline)
    fitted = fit_model(pipeline, pipeline.models[0], panel.until(plan.fit_until).filled("error"))
    cutoffs = np.unique(issued.cutoff)
    # Both have paid for imports, threads and a first Trainer before a clock runs.
    forecast_pairs(fitted, pipeline, panel, Issued(issued.series[:1], issued.cutoff[:1]))

    begun = time.perf_counter()
    ours = forecast_pairs(fitted, pipeline, panel, issued)
    seconds = time.perf_counter() - begun

    chosen = cutoffs[np.linspace(0, len(cutoffs) - 1, min(sample, len(cutoffs))).astype(int)]
    name = pipeline.models[0].name
    table.add_section()
    table.add_row(name, f"one pass, {len(cutoffs)} cutoffs", f"{seconds:.1f}", "1.0", "")
    for way, reach in (("predict(), whole history", None), ("predict(), last window", 1)):
        spent, difference = _one_by_one(fitted, pipeline, panel, issued, ours, chosen, reach)
        spent *= len(cutoffs) / len(chosen)
        table.add_row("", way, f"{spent:.1f}", f"{spent / seconds:.1f}", f"{difference:.1e}")


def _one_by_one(
    fitted: FittedModel,
    pipeline: Pipeline,
    panel: Panel,
    issued: Issued,
    ours: np.ndarray,
    cutoffs: np.ndarray,
    windows: int | None,
) -> tuple[float, float]:
    """Seconds of a ``predict()`` from each cutoff, and how far its forecasts are from ours.

    Frames are cut outside of the clock: a careful caller would have them.
    """
    library = _library_of(fitted, pipeline)
    future = list(pipeline.exogenous.all_future)
    spent, difference = 0.0, 0.0
    everything = panel.to_frame()
    index = panel.index
    length = fitted.model.input_size
    for cutoff in cutoffs.tolist():
        first = index.min() if windows is None else cutoff - windows * length + 1
        known = everything[(index >= first) & (index <= cutoff)]
        ahead = everything[(index > cutoff) & (index <= cutoff + pipeline.horizon)]
        known, ahead = known[["unique_id", "ds", "y", *future]], ahead[["unique_id", "ds", *future]]
        begun = time.perf_counter()
        forecast = library.predict(df=known, futr_df=ahead if future else None)
        spent += time.perf_counter() - begun
        theirs = forecast.drop(columns=["unique_id", "ds"]).to_numpy()
        theirs = np.sort(theirs.reshape(panel.n_series, pipeline.horizon, -1), axis=2)
        mine = ours[issued.cutoff == cutoff]
        difference = max(difference, float(np.abs(mine - theirs).max()))
    return spent, difference


def _library_of(fitted: FittedModel, pipeline: Pipeline) -> Any:
    """The model in NeuralForecast's own hands; sets what its ``fit()`` would have set."""
    from neuralforecast import NeuralForecast

    library = NeuralForecast(models=[fitted.model], freq=pipeline.frequency)
    library._fitted = True
    library.scalers_, library.static_scalers_ = {}, {}
    library.id_col, library.time_col, library.target_col = "unique_id", "ds", "y"
    library.prediction_intervals = None
    return library


def _pipeline(model: str, horizon: int, hourly: bool) -> Pipeline:
    return parse_pipeline(
        {
            "name": "benchmark",
            "source": {"files": "made_up.csv"},
            "frequency": "h" if hourly else "D",
            "horizon": horizon,
            "step": 24 if hourly else 1,
            "start": "2010-01-01",
            "levels": [80],
            **({"exogenous": _EXOGENOUS} if catalogue()[model].future else {}),
            "models": [{"model": model, "parameters": {"max_steps": 5, "input_size": 56}}],
        },
        origin="benchmarks/inference.py",
    )


def _sales(series: int, days: int, hourly: bool) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    dates = pd.date_range(end="2024-12-31", periods=days)
    if hourly:
        dates = pd.date_range(dates[0], dates[-1] + pd.Timedelta(hours=23), freq="h")
    week = 10 + 3 * np.sin(2 * np.pi * dates.dayofweek.to_numpy() / 7)
    shape = (series, len(dates))
    promotion = (rng.random(shape) < 0.1).astype(float)
    y = week * rng.uniform(1, 5, size=(series, 1)) + 4 * promotion + rng.normal(size=shape)
    return pd.DataFrame(
        {
            "unique_id": pd.Categorical.from_codes(
                np.repeat(np.arange(series), len(dates)),
                categories=[f"product {i:05d}" for i in range(series)],
            ),
            "ds": np.tile(dates, series),
            "y": y.reshape(-1),
            "promotion": promotion.reshape(-1),
        }
    )


if __name__ == "__main__":
    typer.run(main)
