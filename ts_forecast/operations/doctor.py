"""Everything that a newcomer can get wrong, each with its remedy.

Which checks there are, and that none can end the examination; the checks are ``host_checks`` and
``deployment_checks``. Nothing is repaired. What is written: a probe file that is removed, and the
embedded server's folder, for only starting it says whether it starts.
"""

from __future__ import annotations

from collections.abc import Callable

from ts_forecast.errors import TsForecastError
from ts_forecast.operations.deployment_checks import (
    check_database,
    check_environment,
    check_pipelines,
)
from ts_forecast.operations.findings import Finding
from ts_forecast.operations.host_checks import (
    check_clock,
    check_folders,
    check_host,
    check_libraries,
    check_port,
    check_python,
    check_torch,
)
from ts_forecast.settings import load_settings


def examine_deployment(port: int = 3000) -> list[Finding]:
    """All checks, in the order in which their failures explain each other.

    Args:
        port: that the UI is to have.
    """
    findings = [
        *_outcome("Python", check_python),
        *_outcome("libraries", check_libraries),
        *_outcome("clock", check_clock),
    ]
    try:
        settings = load_settings()
    except TsForecastError as error:
        # Without settings there are no folders, pipelines or database to look at.
        return [*findings, Finding("settings", "error", error.problem, error.remedy)]
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("settings", lambda: check_environment(settings)),
        ("host", lambda: check_host(settings)),
        ("torch", lambda: check_torch(settings)),
        ("folders", lambda: check_folders(settings)),
        ("pipelines", lambda: check_pipelines(settings)),
        ("database", lambda: check_database(settings)),
        ("port", lambda: check_port(port)),
    ]
    for subject, check in checks:
        findings += _outcome(subject, check)
    return findings


def _outcome(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except TsForecastError as error:
        return [Finding(subject, "error", error.problem, error.remedy)]
    except Exception as error:  # noqa: BLE001 — a doctor must not die of the illness
        reason = " ".join(str(error).split())
        return [Finding(subject, "error", f"{type(error).__name__}: {reason}")]
