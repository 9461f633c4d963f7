"""How often intervals hold what they promise: the library's own beside conformal ones.

``python -m benchmarks.interval_coverage --data FOLDER`` with ``epf/NP.csv`` in the folder: Nord Pool,
hourly, a day ahead from every midnight of 2017 and 2018, eight quarters, models that need no training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ts_forecast.datasets.panel import Panel
from ts_forecast.evaluation.backtest import actual_values
from ts_forecast.evaluation.calibration import calibrate
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.rolling import forecast_pairs
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.training.calibration import calibration_of
from ts_forecast.training.trainer import fit_model

_WEEK = {"season_length": 168}
_PIPELINE = {
    "name": "nord_pool",
    "source": {"files": "NP.csv"},
    "frequency": "h",
    "horizon": 24,
    "start": "2014-01-01",
    "missing": "ffill",
    "season_length": 168,
    "levels": [50, 80, 95],
    "models": [
        {"model": "SeasonalNaive", "name": "SeasonalNaive_own", "parameters": _WEEK},
        {"model": "SeasonalNaive", "parameters": _WEEK, "intervals": "conformal"},
        {
            "model": "SeasonalWindowAverage",
            "parameters": {"season_length": 24, "window_size": 7},
        },
    ],
}


def main() -> None:
    """Print the mean coverage of each model and level, and the lowest and highest of a quarter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    raw = pd.read_csv(parser.parse_args().data / "epf" / "NP.csv")
    frame = pd.DataFrame(
        {"unique_id": "NP", "ds": pd.to_datetime(raw.iloc[:, 0]), "y": raw.iloc[:, 1].astype(float)}
    )
    pipeline = parse_pipeline(_PIPELINE, origin="benchmark")
    panel = Panel.from_frame(frame[frame["ds"] >= "2014-01-01"].drop_duplicates("ds"), pipeline)
    found = []
    for quarter in quarter_range(Quarter(2017, 1), Quarter(2018, 4)):
        plan = pipeline.slice_plan(quarter)
        history = panel.until(plan.fit_until)
        issued = panel.issued(plan, pipeline)
        actual = actual_values(panel, issued, pipeline.horizon)
        for spec in pipeline.models:
            fitted = fit_model(pipeline, spec, history.filled(pipeline.missing))
            fitted.calibration = calibration_of(calibrate, pipeline, spec, history, quarter)
            outputs = forecast_pairs(fitted, pipeline, panel, issued)
            for level in pipeline.levels:
                low = pipeline.quantiles.index(round(0.5 - level / 200, 6))
                inside = (outputs[..., low] <= actual) & (actual <= outputs[..., -1 - low])
                share = float(inside[np.isfinite(actual)].mean())
                found.append({"model": spec.name, "level": level, "coverage": share})
    table = pd.DataFrame(found).groupby(["model", "level"])["coverage"]
    print(table.agg(["mean", "min", "max"]).round(2).to_string())


if __name__ == "__main__":
    main()
