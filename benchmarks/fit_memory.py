"""What a fit adds to its process at its peak, beside the estimate that the guard of host memory makes.

``python -m benchmarks.fit_memory``: each fit of three steps in a process of its own, one thread. The
ratio is the estimate with its safety factor over what was measured: below 1, the guard would let in a
fit that does not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Model, series, days, parameters.
CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("MLP", 100, 730, {"batch_size": 32, "windows_batch_size": 256}),
    ("NHITS", 100, 730, {"batch_size": 32, "windows_batch_size": 1024}),
    ("NHITS", 1000, 1825, {"batch_size": 32, "windows_batch_size": 1024}),
    ("LSTM", 100, 730, {"batch_size": 32, "windows_batch_size": 256}),
    ("TiDE", 100, 730, {"batch_size": 32, "windows_batch_size": 1024}),
    ("TCN", 100, 730, {"batch_size": 32, "windows_batch_size": 256}),
    ("PatchTST", 100, 730, {"batch_size": 32, "windows_batch_size": 128}),
    ("PatchTST", 100, 730, {"batch_size": 32, "windows_batch_size": 1024}),
    ("TFT", 100, 730, {"batch_size": 32, "windows_batch_size": 128}),
    ("TFT", 100, 730, {"batch_size": 32, "windows_batch_size": 512}),
    ("TSMixer", 100, 730, {"batch_size": 100, "windows_batch_size": 32}),
    ("iTransformer", 50, 730, {"batch_size": 50, "windows_batch_size": 32}),
]


def measure(name: str, series: int, days: int, parameters: dict[str, Any]) -> tuple[float, float]:
    """MiB measured and estimated, the latter without its safety factor."""
    from ts_forecast.datasets.panel import Panel
    from ts_forecast.pipeline_file import parse_pipeline
    from ts_forecast.training.memory import memory_need
    from ts_forecast.training.neural import build_neural
    from ts_forecast.training.trainer import fit_model

    content = {
        "name": "memory",
        "source": {"files": "none.csv"},
        "frequency": "D",
        "horizon": 14,
        "start": "2015-01-01",
        "levels": [80],
        "models": [{"model": name, "parameters": {"max_steps": 3, "input_size": 56, **parameters}}],
    }
    pipeline = parse_pipeline(content, origin="benchmark")
    spec = pipeline.models[0]
    ids = [f"s{number:05d}" for number in range(series)]
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(ids, days),
            "ds": np.tile(pd.date_range("2015-01-01", periods=days), series),
            "y": np.random.default_rng(1).normal(size=series * days),
        }
    )
    panel = Panel.from_frame(frame, pipeline).filled("error")
    del frame
    model = build_neural(pipeline, spec, series)
    need = memory_need(model, panel, 2)
    parts = (need.dataset, need.batch, need.windows, need.weights, need.activations)
    # Zeroes the mark of the highest resident size.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    fit_model(pipeline, spec, panel)
    return (_status("VmHWM") - before) / 1024, (sum(parts) / 2**20) + 128


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, help="one case, in this process; prints JSON")
    given = parser.parse_args()
    if given.case is not None:
        print(json.dumps(measure(*CASES[given.case])))
        return
    print("| model | series × days | batch, windows | measured MiB | estimate MiB | ratio |")
    print("|---|---|---|---|---|---|")
    for number, (name, series, days, parameters) in enumerate(CASES):
        answer = subprocess.run(
            [sys.executable, "-m", "benchmarks.fit_memory", "--case", str(number)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        measured, estimate = json.loads(answer.stdout.strip().splitlines()[-1])
        sizes = f"{parameters['batch_size']}, {parameters['windows_batch_size']}"
        print(
            f"| {name} | {series:,} × {days:,} | {sizes} | {measured:.0f} | {estimate:.0f} "
            f"| {1.25 * estimate / measured:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
