"""The other side of ``pipeline_overhead``: what one writes with neuralforecast alone.

``python -m benchmarks.bare_script PIPELINE.yaml SOURCE.csv OUTPUT QUARTER…`` fits and forecasts each
quarter in one process, by the library's own ``cross_validation``, its fastest way from many cutoffs,
and writes a Parquet file a quarter. Nothing of ts-forecast is imported. Loggers, bars and checkpoints,
which only cost, are off.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

_QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
_EPOCH = pd.Timestamp("2001-01-01")


def read(definition: dict[str, Any], source: Path) -> pd.DataFrame:
    """The source in long form."""
    names = definition["source"]
    frame = pd.read_csv(source, parse_dates=[names["time_column"]])
    frame = frame.rename(columns={names["time_column"]: "ds"})
    if "wide" in names:
        return frame.melt(id_vars="ds", var_name="unique_id", value_name="y")
    if names["id_column"] is None:
        frame["unique_id"] = names["series_name"]
    return frame.rename(columns={names["target_column"]: "y"})


def models_of(definition: dict[str, Any]) -> list[Any]:
    """The library's models, not yet fitted."""
    from neuralforecast import models
    from neuralforecast.losses.pytorch import MAE, MQLoss

    future = definition.get("exogenous", {}).get("future", [])
    levels = definition.get("levels")
    built = []
    for entry in definition["models"]:
        loss = MQLoss(level=levels) if levels else MAE()
        arguments = {
            "h": definition["horizon"],
            "loss": loss,
            "random_seed": definition["seed"],
            **_QUIET,
        }
        if future:
            arguments["futr_exog_list"] = future
        built.append(getattr(models, entry["model"])(**arguments, **entry["parameters"]))
    return built


def quarter(definition: dict[str, Any], frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """Fit on what is before a quarter, forecast it from all of its cutoffs."""
    from neuralforecast import NeuralForecast

    period = pd.Period(label.replace("-", ""), freq="Q")
    start, horizon = period.start_time, definition["horizon"]
    unit = pd.Timedelta(pd.tseries.frequencies.to_offset(definition["frequency"]).nanos, unit="ns")
    if definition["frequency"] == "D":
        unit = pd.Timedelta(days=1)
    step = definition.get("step", horizon)
    end = min(period.end_time, pd.Timestamp(definition["end"]) + pd.Timedelta(days=1) - unit)
    grid = pd.date_range(start - horizon * unit, end - unit, freq=unit)
    cutoffs = grid[((grid - _EPOCH) // unit + 1) % step == 0]
    # The library forecasts whole horizons only; the last cutoffs' reach past the data is left out.
    cutoffs = cutoffs[cutoffs + horizon * unit <= frame["ds"].max()]
    oldest = (period - definition["window_quarters"]).start_time
    known = frame[(frame["ds"] >= oldest) & (frame["ds"] <= cutoffs[-1] + horizon * unit)]
    future = definition.get("exogenous", {}).get("future", [])
    library = NeuralForecast(models=models_of(definition), freq=definition["frequency"])
    rows = library.cross_validation(
        df=known[["unique_id", "ds", "y", *future]],
        n_windows=None,
        step_size=step,
        test_size=(len(cutoffs) - 1) * step + horizon,
        val_size=0,
    )
    return rows[(rows["ds"] >= start) & (rows["ds"] <= end)]


def main() -> None:
    """Run every quarter."""
    warnings.simplefilter("ignore")
    definition = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    frame = read(definition, Path(sys.argv[2]))
    output = Path(sys.argv[3])
    output.mkdir(parents=True, exist_ok=True)
    for label in sys.argv[4:]:
        rows = quarter(definition, frame, label)
        rows.to_parquet(output / f"{label}.parquet")
        print(label, len(rows), flush=True)


if __name__ == "__main__":
    main()
