"""Quarter arithmetic: the one partition of every asset.

Keys (first day, ``2025-04-01``), labels (``2025-Q2``) and half-open bounds in UTC without a zone.
Steps and cutoffs within a quarter live in ``cutoffs``; nothing here knows a pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from ts_forecast.errors import TsForecastError

_LABEL = re.compile(r"^(\d{4})-?[Qq]([1-4])$")
# Timestamps in nanoseconds reach from 1677 to 2262; windows and horizons need room on both sides.
YEARS = range(1700, 2201)


@dataclass(frozen=True, order=True)
class Quarter:
    """A calendar quarter, ordered by time.

    >>> Quarter.parse("2025-Q2").key
    '2025-04-01'
    >>> Quarter.parse("2025-04-01").shift(-2).label
    '2024-Q4'
    """

    year: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 4:
            raise TsForecastError(
                f"There is no quarter {self.number} in {self.year}.", remedy="Use 1 to 4."
            )

    @classmethod
    def parse(cls, text: str) -> Quarter:
        """A key (``2025-04-01``) or a label (``2025-Q2``).

        Raises:
            TsForecastError: the text is neither, or its year is not one of ``YEARS``.
        """
        found = cls._read(text.strip())
        if found is None:
            raise TsForecastError(
                f"{text!r} is not a quarter.",
                remedy="Write a label such as 2025-Q2 or its first day, 2025-04-01.",
            )
        if found.year not in YEARS:
            raise TsForecastError(
                f"{text!r} lies outside of the years {YEARS[0]} to {YEARS[-1]}.",
                remedy="Write a quarter of these years.",
            )
        return found

    @classmethod
    def _read(cls, text: str) -> Quarter | None:
        if match := _LABEL.match(text):
            return cls(int(match[1]), int(match[2]))
        try:
            day = date.fromisoformat(text)
        except ValueError:
            return None
        return cls.of(day) if day.day == 1 and day.month % 3 == 1 else None

    @classmethod
    def of(cls, moment: date | datetime) -> Quarter:
        """The quarter that holds the moment."""
        return cls(moment.year, (moment.month - 1) // 3 + 1)

    @property
    def start(self) -> datetime:
        """First moment of the quarter (UTC, without a zone)."""
        return datetime(self.year, 3 * self.number - 2, 1)

    @property
    def end(self) -> datetime:
        """First moment after the quarter: its bounds are half-open."""
        return self.shift(1).start

    @property
    def key(self) -> str:
        """The partition key, for Dagster and for file names."""
        return self.start.date().isoformat()

    @property
    def label(self) -> str:
        """The name for people and for ``quarter`` columns."""
        return f"{self.year}-Q{self.number}"

    def shift(self, quarters: int) -> Quarter:
        """The quarter that lies ``quarters`` later (earlier if negative)."""
        year, number = divmod(self.year * 4 + self.number - 1 + quarters, 4)
        return Quarter(year, number + 1)

    def __str__(self) -> str:
        return self.label


def quarter_range(first: Quarter, last: Quarter) -> Iterator[Quarter]:
    """Every quarter from ``first`` to ``last``, both included; empty if ``last`` is earlier."""
    current = first
    while current <= last:
        yield current
        current = current.shift(1)
