"""The exogenous columns of a pipeline file: what is known of each at a cutoff.

Where they come from is ``pipeline_source``'s, what a model takes of them ``pipeline``'s.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ts_forecast.pipeline_source import Strict

CalendarFeature = Literal["hour", "weekday", "monthday", "week", "month", "quarter"]


class Exogenous(Strict):
    """Exogenous columns by what is known of them at a cutoff."""

    future: tuple[str, ...] = Field((), description="Known ahead over the whole horizon.")
    historic: tuple[str, ...] = Field((), description="Known up to the cutoff only.")
    static: tuple[str, ...] = Field((), description="One value a series, numeric.")
    calendar: tuple[CalendarFeature, ...] = Field(
        (), description="Made from ds, each a sine and a cosine; known ahead."
    )

    @property
    def calendar_columns(self) -> tuple[str, ...]:
        """Names of the columns made from ``calendar``."""
        return tuple(f"{name}_{wave}" for name in self.calendar for wave in ("sin", "cos"))

    @property
    def all_future(self) -> tuple[str, ...]:
        """Named future columns, then those of the calendar: the order of model inputs."""
        return (*self.future, *self.calendar_columns)

    @property
    def temporal(self) -> tuple[str, ...]:
        """Columns that the source must hold, in the order of a panel's exogenous columns."""
        return (*self.future, *self.historic)

    def chosen(self, names: Collection[str]) -> Exogenous:
        """Those that are named; a calendar feature by its own name or by a column of it."""
        calendar = tuple(
            feature
            for feature in self.calendar
            if feature in names or {f"{feature}_sin", f"{feature}_cos"} & set(names)
        )
        return Exogenous(
            future=tuple(c for c in self.future if c in names),
            historic=tuple(c for c in self.historic if c in names),
            static=tuple(c for c in self.static if c in names),
            calendar=calendar,
        )
