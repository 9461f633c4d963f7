"""Where a computation ran: host, library versions, and the commit of our source.

Everything here is cheap and cannot fail: what is unknown is left out. No library is imported to
learn its version.
"""

from __future__ import annotations

import platform
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ts_forecast.tracking.fingerprint import library_versions

_GIT_SECONDS = 5.0
_RECORDED = (
    "ts-forecast",
    "neuralforecast",
    "statsforecast",
    "mlforecast",
    "lightgbm",
    "scikit-learn",
    "utilsforecast",
    "torch",
    "numpy",
    "pandas",
)


@dataclass(frozen=True)
class SourceRevision:
    """The commit that our source was checked out from; None where it was not (a wheel, no git)."""

    commit: str | None = None
    branch: str | None = None


@cache
def source_revision() -> SourceRevision:
    """The commit and branch of this package's checkout, asked once a process.

    A package installed into an environment that happens to lie inside somebody's checkout is not of
    that checkout: git must know this very file.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return SourceRevision()
    answer = _git(here.parent, "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    lines = answer.split() if answer else []
    if len(lines) != 2:
        return SourceRevision()
    commit, branch = lines
    return SourceRevision(commit=commit[:40], branch=None if branch == "HEAD" else branch[:255])


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def describe_environment() -> dict[str, object]:
    """Host, platform and library versions, as every run records them."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": library_versions(*_RECORDED),
    }
