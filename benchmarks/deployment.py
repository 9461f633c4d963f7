"""A deployment of its own for a benchmark: a fresh folder, embedded PostgreSQL, webserver and daemon.

Laying it out, starting and ending it, launching a backfill; what is measured is each benchmark's own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from assets.backfill import BackfillError, Webserver
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

_END_SECONDS = 30


def lay_out(place: Path, name: str, definition: dict[str, Any], slots: int | None) -> Settings:
    """Settings of a deployment below ``place`` with one pipeline; the source goes to ``data/raw``."""
    (place / "data" / "raw").mkdir(parents=True, exist_ok=True)
    (place / "pipelines").mkdir(exist_ok=True)
    text = yaml.safe_dump(definition, sort_keys=False)
    (place / "pipelines" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return Settings(
        _env_file=None,
        home=place / "home",
        pipelines_dir=place / "pipelines",
        data_dir=place / "data",
        model_dir=place / "models",
        output_dir=place / "outputs",
        log_dir=place / "logs",
        slots=slots,
        enable_gpu=False,
    )


@contextmanager
def served(settings: Settings, place: Path) -> Iterator[Webserver]:
    """The deployment's webserver while it runs; its log is ``server.log``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "TS_FORECAST_HOME": str(settings.home),
        "TS_FORECAST_PIPELINES": str(settings.pipelines_dir),
        "DATA_DIR": str(settings.data_dir),
        "MODEL_DIR": str(settings.model_dir),
        "OUTPUT_DIR": str(settings.output_dir),
        "LOG_DIR": str(settings.log_dir),
        "ENABLE_GPU": str(settings.enable_gpu).lower(),
    }
    if settings.slots is not None:
        environment["TS_FORECAST_SLOTS"] = str(settings.slots)
    with (place / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "assets.serve", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Webserver(f"http://127.0.0.1:{port}", timeout=120)
    finally:
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(tree, timeout=_END_SECONDS)
        for survivor in alive:
            survivor.kill()


def backfill(
    webserver: Webserver, name: str, quarters: list[Quarter], *, seconds: float
) -> tuple[float, str]:
    """Launch a backfill of all assets and wait for it; the launch's Unix time and the backfill's id.

    Raises:
        BackfillError: it did not succeed.
    """
    keys = _assets(webserver, name)
    launched = time.time()
    backfill_id = webserver.launch(keys, [quarter.key for quarter in quarters])
    state = webserver.wait(backfill_id, seconds=seconds)
    if not state.succeeded:
        raise BackfillError(f"The backfill of {name} is {state.status}: {state.runs} {state.error}")
    return launched, backfill_id


def _assets(webserver: Webserver, name: str) -> list[list[str]]:
    for _ in range(240):
        try:
            if keys := webserver.asset_keys(name):
                return keys
        except BackfillError:
            pass
        time.sleep(0.5)
    raise BackfillError(f"The server shows no assets of {name} after two minutes.")
