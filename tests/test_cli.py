"""How the command line starts and ends: at once, in one line, with the exit code that `--help` names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from sqlalchemy import Engine, text

from ts_forecast.commands.serving import run_module
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[1]
HEAVY = ("torch", "neuralforecast", "statsforecast", "pandas", "sqlalchemy", "matplotlib", "ray")


def test_cli__imported__is_light_and_quick() -> None:
    code = (
        "import json, sys, time; begun = time.process_time(); import ts_forecast.cli; "
        f"print(json.dumps([time.process_time() - begun, [m for m in {HEAVY} if m in sys.modules]]))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )

    seconds, heavy = json.loads(answer.stdout)
    assert heavy == []
    # Processor time: the wall clock of a busy host says nothing about us.
    assert seconds < 1


@pytest.mark.parametrize(("options", "has_traceback"), [([], False), (["--debug"], True)])
def test_main__our_error__is_one_line_unless_asked(
    options: list[str], has_traceback: bool, tmp_path: Path
) -> None:
    # Brackets are no markup: they are printed as they stand.
    folder = tmp_path / "[red]pipes"
    folder.mkdir()
    (folder / "bad.yaml").write_text("horizn: 3\n")

    answer = subprocess.run(
        [sys.executable, "-m", "ts_forecast.cli", *options, "pipelines", "list"],
        env=os.environ | {"TS_FORECAST_PIPELINES": str(folder)},
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )

    assert ("Traceback" in answer.stderr) is has_traceback
    if not has_traceback:
        assert answer.returncode == 2
        assert len(answer.stderr.splitlines()) == 1
        assert "[red]pipes" in answer.stderr
        assert "docs/pipeline-file.md" in answer.stderr
    assert answer.stdout == ""


def test_run__interrupted_in_a_fit__ends_with_130_and_is_killed(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    days = pd.date_range("2024-01-01", periods=300)
    frame = pd.DataFrame({"ds": days, "y": np.arange(300.0) % 7})
    frame.to_csv(tmp_path / "demand.csv", index=False)
    assert settings.database_url is not None
    arguments = ["run", "--data-path", tmp_path / "demand.csv", "--models", "MLP"]
    arguments += ["--horizons", "7", "--max-steps", "1000000", "--output-dir", tmp_path / "out"]
    process = psutil.Popen(
        [sys.executable, "-m", "ts_forecast.cli", *map(str, arguments)],
        env=os.environ
        | {
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "MODEL_DIR": str(settings.model_dir),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        _wait_for_the_fit(process, engine)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint
    assert not (tmp_path / "out").exists()
    with engine.connect() as connection:
        statuses = connection.execute(text("SELECT status FROM runs")).scalars().all()
        models = connection.scalar(text("SELECT count(*) FROM models"))
    assert (statuses, models) == (["killed"], 0)


def _wait_for_the_fit(process: psutil.Popen, engine: Engine) -> None:
    """Until the run is open and torch has worked for longer than its import takes."""
    deadline = time.monotonic() + 120
    query = text("SELECT count(*) FROM runs WHERE status = 'running'")
    begun = None
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        with engine.connect() as connection:
            is_open = bool(connection.scalar(query))
        used = process.cpu_times().user
        if is_open and begun is None:
            begun = used
        is_imported = any("libtorch_cpu" in item.path for item in process.memory_maps())
        if begun is not None and is_imported and used - begun > 8:
            return
        time.sleep(0.3)
    raise AssertionError("the fit did not begin")


@pytest.mark.parametrize(("at_the_end", "expected"), [(0, 0), (1, 130)])
def test_run_module__interrupted__is_130_unless_the_child_calls_it_done(
    at_the_end: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal, sys, time\n"
        f"signal.signal(signal.SIGINT, lambda *_: sys.exit({at_the_end}))\n"
        # Both get it, as from a terminal.
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(30)\n"
    )
    (tmp_path / "ending.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert run_module("ending") == expected
