"""The problems of ``pipeline_overhead``: their pipeline files, and their sources as CSV.

Each is written for both sides alike. Nord Pool's prices and ETTm2 are real data and lie in the folder
given; the daily panel is simulated, as no real one of a thousand series is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ts_forecast.quarters import Quarter, quarter_range

SEED = 1
_PANEL_START, _PANEL_END = "2020-01-01", "2024-12-31"


@dataclass(frozen=True)
class Case:
    """A problem.

    Attributes:
        definition: its pipeline file.
        first, last: quarters of the whole backfill.
    """

    definition: dict[str, Any]
    first: str
    last: str

    def quarters(self, count: int) -> list[Quarter]:
        """The last ``count`` quarters."""
        everything = list(quarter_range(Quarter.parse(self.first), Quarter.parse(self.last)))
        return everything[-count:]


def build_case(
    name: str, data: Path, source: Path, *, steps: int, series: int, quarters_per_run: int
) -> Case:
    """Write the source file and describe the problem.

    Args:
        source: the CSV that both sides read.
        steps: training steps of every model.
        series: of the simulated panel.
    """
    case = _CASES[name]
    if name == "panel":
        _panel(series).to_csv(source, index=False, float_format="%.4f")
    else:
        frame = pd.read_csv(data / case.definition["source"].pop("from"), skipinitialspace=True)
        frame.to_csv(source, index=False)
    definition = case.definition | {
        "source": case.definition["source"] | {"files": f"raw/{source.name}"},
        "seed": SEED,
        "quarters_per_run": quarters_per_run,
        "models": [
            {"model": model, "parameters": parameters | {"max_steps": steps}}
            for model, parameters in case.definition["models"].items()
        ],
    }
    return Case(definition, case.first, case.last)


def _panel(series: int) -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    days = pd.date_range(_PANEL_START, _PANEL_END, freq="D")
    week = 1 + 0.3 * np.sin(2 * np.pi * days.dayofweek.to_numpy() / 7)
    year = 1 + 0.2 * np.sin(2 * np.pi * days.dayofyear.to_numpy() / 365.25)
    level = rng.lognormal(3, 1, size=(series, 1))
    y = level * (week * year + 0.2 * rng.standard_normal((series, len(days))))
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"item {i:05d}" for i in range(series)], len(days)),
            "ds": np.tile(days.to_numpy(), series),
            "y": y.reshape(-1),
        }
    )


_COMMON: dict[str, Any] = {
    "learning_rate": 0.001,
    "scaler_type": "standard",
    "windows_batch_size": 256,
}
_CASES = {
    "nord_pool": Case(
        {
            "source": {
                "from": "epf/NP.csv",
                "time_column": "Date",
                "id_column": None,
                "series_name": "NP",
                "target_column": "Price",
            },
            "frequency": "h",
            "horizon": 24,
            "start": "2013-01-01",
            "end": "2018-12-24",
            "window_quarters": 16,
            "exogenous": {"future": ["Grid load forecast", "Wind power forecast"]},
            "levels": [80],
            "models": {
                "NHITS": {"input_size": 168, **_COMMON},
                "NBEATSx": {"input_size": 168, **_COMMON},
                "TiDE": {"input_size": 168, **_COMMON},
            },
        },
        "2017-Q1",
        "2018-Q4",
    ),
    "panel": Case(
        {
            "source": {"id_column": "unique_id", "time_column": "ds", "target_column": "y"},
            "frequency": "D",
            "horizon": 14,
            "step": 7,
            "start": _PANEL_START,
            "end": _PANEL_END,
            "window_quarters": 8,
            "levels": [80],
            "models": {
                "NHITS": {"input_size": 56, **_COMMON},
                "DLinear": {"input_size": 56, **_COMMON},
                "MLP": {"input_size": 56, **_COMMON},
            },
        },
        "2023-Q1",
        "2024-Q4",
    ),
    "ettm2": Case(
        {
            "source": {
                "from": "ett/ETTm2.csv",
                "time_column": "date",
                "wide": {"target": "{unique_id}"},
            },
            "frequency": "15min",
            "horizon": 96,
            "start": "2016-07-01",
            "end": "2018-06-25",
            "window_quarters": 8,
            "models": {"NHITS": {"input_size": 480, **_COMMON, "windows_batch_size": 1024}},
        },
        "2017-Q1",
        "2018-Q2",
    ),
}
NAMES = tuple(_CASES)
