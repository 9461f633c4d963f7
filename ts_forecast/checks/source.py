"""The check of a source as a whole: whether files of it were set aside."""

from __future__ import annotations

from collections.abc import Mapping

from ts_forecast.checks.result import CheckResult

_NAMED = 10


def check_set_aside(aside: Mapping[str, str]) -> CheckResult:
    """Whether all files of the source can be read.

    Args:
        aside: reasons of the files that were set aside, by path.
    """
    shown = [f"{path}: {reason}" for path, reason in list(aside.items())[:_NAMED]]
    if len(aside) > _NAMED:
        shown.append(f"and {len(aside) - _NAMED} more, see staging.rejected")
    return CheckResult(
        "set_aside",
        not aside,
        "; ".join(shown) or "no file of the source is set aside",
        {"files_set_aside": len(aside)},
    )
