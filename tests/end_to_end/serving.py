"""A deployment as users run it: ``python -m assets.serve`` in a folder of its own, and killing its parts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from sqlalchemy import text

from assets.backfill import Webserver
from ts_forecast.db.database import open_database
from ts_forecast.db.embedded import data_folder, stop_embedded
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]
Part = Literal["webserver", "daemon", "database"]
_MODULES = {"webserver": "dagster_webserver", "daemon": "resources.daemon"}


@dataclass
class Deployment:
    """A running deployment and what a user has of it."""

    address: str
    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def webserver(self) -> Webserver:
        return Webserver(self.address)

    @property
    def raw(self) -> Path:
        """Where the sources lie."""
        return self.settings.data_dir / "raw"

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        database = open_database(self.settings)
        try:
            with database.engine.connect() as connection:
                return list(connection.execute(text(sql), parameters))
        finally:
            database.engine.dispose()

    def process_of(self, part: Part) -> psutil.Process | None:
        """The one process that is killed; None while it is being started again."""
        if part == "database":
            with suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
                file = data_folder(self.settings) / "postmaster.pid"
                return psutil.Process(int(file.read_text().split()[0]))
            return None
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if child.cmdline()[1:3] == ["-m", _MODULES[part]]:
                    return child
        return None

    def kill(self, part: Part) -> bool:
        """SIGKILL to a part; False if it was not there to be killed."""
        process = self.process_of(part)
        if process is None:
            return False
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return True
        return False

    def wait_until_served(self, pipeline: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.tail()
            with suppress(Exception):
                if self.webserver.asset_keys(pipeline):
                    return
            assert time.monotonic() < deadline, self.tail()
            time.sleep(0.5)

    def tail(self, characters: int = 3000) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-characters:]


@contextmanager
def serving(
    folder: Path, pipelines: Mapping[str, Any], variables: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """Serve pipelines from a folder; whoever enters waits for the UI.

    Args:
        pipelines: content of the pipeline files, by name; their sources lie in ``data/raw``.
        variables: further environment variables.
    """
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    for name, definition in pipelines.items():
        text = yaml.safe_dump(definition, sort_keys=False)
        (folder / "pipelines" / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "data" / "raw").mkdir(parents=True, exist_ok=True)
    settings = settings_of(folder)
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("DAGSTER", "DATABASE", "TS_FORECAST"))
    }
    environment |= {
        "TS_FORECAST_HOME": str(settings.home),
        "TS_FORECAST_PIPELINES": str(settings.pipelines_dir),
        "DATA_DIR": str(settings.data_dir),
        "MODEL_DIR": str(settings.model_dir),
        "OUTPUT_DIR": str(settings.output_dir),
        "LOG_DIR": str(settings.log_dir),
        **(variables or {}),
    }
    port = free_port()
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "assets.serve", "--port", str(port)],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Deployment(f"http://127.0.0.1:{port}", settings, process, log)
    try:
        for name in pipelines:
            running.wait_until_served(name)
        yield running
    finally:
        end_tree(process)
        stop_embedded(settings)


def settings_of(folder: Path, database_url: str | None = None) -> Settings:
    """Settings of a deployment below a folder."""
    return Settings(
        _env_file=None,
        home=folder / "home",
        pipelines_dir=folder / "pipelines",
        data_dir=folder / "data",
        model_dir=folder / "models",
        output_dir=folder / "outputs",
        log_dir=folder / "logs",
        database_url=database_url,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything that it started, by PID."""
    if process.poll() is not None:
        return
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(tree, timeout=20)
    for survivor in alive:
        survivor.kill()
    process.wait(timeout=10)
