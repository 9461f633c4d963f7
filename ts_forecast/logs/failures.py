"""Failures that a person should hear of: one line each, as a row of ``system_logs`` and to a webhook.

Finding them is Dagster's side. Records of running code go through ``database``; here a failure is stored
at once, by the one who found it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Engine

from ts_forecast.logs.masking import Masker
from ts_forecast.logs.records import Fields, clean, plain
from ts_forecast.logs.rows import write_rows
from ts_forecast.settings import Settings

SOURCE = "ts_forecast.failures"
"""``system_logs.log_source`` of these rows."""

_LONGEST_LINE = 1_000


@dataclass(frozen=True)
class Failure:
    """Something failed.

    Attributes:
        pipeline: empty if it is of none, e.g. of the database's upkeep.
        quarter: a label, or the first and the last of a range.
        step: the asset, or the step of a job.
        error: why; brought into one line.
        details: whatever else is worth a column in ``extra_data``.
    """

    pipeline: str
    quarter: str
    step: str
    error: str
    level: Literal["WARNING", "ERROR"] = "ERROR"
    details: Mapping[str, object] = field(default_factory=dict)

    def line(self, mask: Masker) -> str:
        r"""The reason in one line, without secrets.

        >>> Failure("shop", "2025-Q1", "predictions", "no\nmemory").line(Masker())
        'shop, 2025-Q1, predictions: no memory'
        """
        where = ", ".join(part for part in (self.pipeline, self.quarter, self.step) if part)
        return clean(" ".join(f"{where}: {self.error}".split()), mask, _LONGEST_LINE)


def store_failures(engine: Engine, settings: Settings, failures: Sequence[Failure]) -> None:
    """Write the rows; commits.

    Raises:
        DBAPIError: they could not be stored, for now.
    """
    mask = Masker.of(settings)
    write_rows(engine, [_fields(failure, mask) for failure in failures], settings.user)


def _fields(failure: Failure, mask: Masker) -> Fields:
    where = {"pipeline": failure.pipeline, "quarter": failure.quarter, "step": failure.step}
    context = plain({**where, **failure.details}, mask)
    return Fields(
        time=datetime.now(UTC),
        level=failure.level,
        logger=SOURCE,
        message=failure.line(mask),
        pid=os.getpid(),
        context=context,
        exception_type=None,
        stack_trace=None,
    )
