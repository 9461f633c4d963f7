"""What the executor's tests share: a deployment, running jobs, reading what steps noted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import executor_jobs
import psutil

from ts_forecast.settings import Settings

# Without the training libraries: most tests are about processes, not about models.
QUICK = {"config": {"preload": []}}
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


@dataclass(frozen=True)
class Deployment:
    """One DAGSTER_HOME with its instance and settings."""

    instance: dg.DagsterInstance
    settings: Settings
    environment: Mapping[str, str]


def read_notes(path: Path) -> list[dict[str, Any]]:
    """What steps have noted so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """The condition's value as soon as it is true.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return value


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def execute(
    deployment: Deployment, name: str, run_config: Mapping[str, Any] | None = None
) -> dg.JobExecutionResult:
    """Run a test job in this process, its steps in theirs."""
    config = {"execution": QUICK, "loggers": _QUIET, **(run_config or {})}
    job = dg.reconstructable(getattr(executor_jobs, name))
    return dg.execute_job(job, deployment.instance, run_config=config)


def config_for(notes: Path, *steps: str, seconds: float = 0.0) -> dict[str, Any]:
    """Run configuration that has the steps note what they see."""
    step = {"config": {"notes": str(notes), "seconds": seconds}}
    return {"execution": QUICK, "loggers": _QUIET, "ops": dict.fromkeys(steps, step)}
