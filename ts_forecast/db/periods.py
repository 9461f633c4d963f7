"""Months and quarters as the bounds of partitions: pure arithmetic, half-open, UTC.

The quarters of forecasts and their keys are ``quarters``; here a period is only where a table is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from ts_forecast.errors import TsForecastError
from ts_forecast.quarters import YEARS

Months = Literal[1, 3]
_LABEL = re.compile(r"^(\d{4})[-_ ]?(?:[Qq]([1-4])|(0[1-9]|1[0-2]))$")


@dataclass(frozen=True, order=True)
class Period:
    """A calendar month or quarter, ordered by time.

    >>> Period.of(date(2024, 2, 29), 1).end
    datetime.datetime(2024, 3, 1, 0, 0, tzinfo=datetime.timezone.utc)
    >>> Period.parse("2025-12", 1).shift(1).suffix
    '2026_01'
    >>> Period.parse("2025-Q1", 3).suffix
    '2025_q1'
    """

    year: int
    number: int
    months: Months

    @classmethod
    def of(cls, moment: date, months: Months) -> Period:
        """The period that holds a moment; one with a zone is taken to UTC."""
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        return cls(moment.year, (moment.month - 1) // months + 1, months)

    @classmethod
    def parse(cls, text: str, months: Months) -> Period:
        """The period of a month (``2025-02``), a quarter (``2025-Q1``: its first month) or a day.

        Raises:
            TsForecastError: the text is none of these, or its year is not one of ``quarters.YEARS``.
        """
        day = None
        if match := _LABEL.match(text.strip()):
            month = 3 * int(match[2]) - 2 if match[2] else int(match[3])
            day = date(int(match[1]), month, 1) if int(match[1]) else None
        else:
            try:
                day = date.fromisoformat(text.strip())
            except ValueError:
                pass
        if day is None or day.year not in YEARS:
            raise TsForecastError(
                f"{text!r} is no month, quarter or day of the years {YEARS[0]} to {YEARS[-1]}.",
                remedy="Write 2025-02, 2025-Q1 or 2025-02-01.",
            )
        return cls.of(day, months)

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, (self.number - 1) * self.months + 1, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.shift(1).start

    @property
    def suffix(self) -> str:
        """The end of its partition's name."""
        return f"{self.year}_{'q' if self.months == 3 else '0' * (self.number < 10)}{self.number}"

    def shift(self, periods: int) -> Period:
        """The period that lies ``periods`` later (earlier if negative)."""
        in_year = 12 // self.months
        year, number = divmod(self.year * in_year + self.number - 1 + periods, in_year)
        return Period(year, number + 1, self.months)


def periods(first: Period, last: Period) -> Iterator[Period]:
    """Every period from the first to the last, both included; empty if ``last`` is earlier."""
    current = first
    while current <= last:
        yield current
        current = current.shift(1)
