"""What a check of the deployment found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: ``error``: forecasting does not work like this; ``warning``: something will not.
        remedy: what to do; empty where nothing has to be done.
    """

    subject: str
    status: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


def judged(subject: str, is_fine: bool, detail: str, remedy: str) -> Finding:
    """``ok``, or a warning with the remedy."""
    return (
        Finding(subject, "ok", detail) if is_fine else Finding(subject, "warning", detail, remedy)
    )
