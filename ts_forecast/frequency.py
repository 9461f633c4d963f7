"""Integer arithmetic on a frequency's grid of timestamps.

Steps, gaps, cutoffs and horizons are all differences of grid indices, so that a month is one step
whatever its length. Reading timestamps out of files lives in ``datasets``; which indices are
cutoffs lives in ``cutoffs``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.errors import TsForecastError

IntArray = npt.NDArray[np.int64]

# The steps of one season, by the frequency's unit; fixed lengths below a day have a day's.
_SEASONS = {"W": 52, "M": 12, "Q": 4, "B": 5, "D": 7}
_ALLOWED = "min, h, D, B, W-MON…W-SUN, MS, ME, QS or QE, with a count where it is a fixed length (15min, 2h)"


@dataclass(frozen=True)
class Grid:
    """The grid of a pandas frequency alias.

    Index 0 lies near 2001-01-01 (a Monday, midnight), so that daily and hourly cutoffs that are
    multiples of 7 or 24 start at Mondays and midnights. Timestamps are naive UTC.

    Raises:
        TsForecastError: the alias is unknown, or coarser than a quarter.
    """

    freq: str

    def __post_init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                offset = pd.tseries.frequencies.to_offset(self.freq)
        except (ValueError, FutureWarning):
            offset = None
        known = offset is not None and (
            isinstance(offset, pd.tseries.offsets.Tick)
            or (
                offset.n == 1
                and offset.rule_code.split("-")[0] in ("D", "B", "W", "MS", "ME", "QS", "QE")
            )
        )
        if not known or (
            isinstance(offset, pd.tseries.offsets.Tick)
            and not pd.Timedelta(milliseconds=1) <= pd.Timedelta(offset) <= pd.Timedelta(days=31)
        ):
            raise TsForecastError(
                f"{self.freq!r} is not a frequency that fits quarters.", remedy=f"Use {_ALLOWED}."
            )

    @cached_property
    def offset(self) -> Any:
        """The frequency as a pandas offset."""
        return pd.tseries.frequencies.to_offset(self.freq)

    @cached_property
    def _fixed_ns(self) -> int | None:
        if isinstance(self.offset, pd.tseries.offsets.Day):
            return int(self.offset.n * pd.Timedelta(days=1).value)
        if isinstance(self.offset, pd.tseries.offsets.Tick):
            return int(pd.Timedelta(self.offset).value)
        return None

    @cached_property
    def _unit(self) -> str:
        return self.offset.rule_code.split("-")[0]

    @cached_property
    def season_length(self) -> int:
        """Steps of the shortest season that people expect: a day below daily, else a week, a year."""
        if self._fixed_ns is not None:
            day = int(pd.Timedelta(days=1).value)
            return day // self._fixed_ns if self._fixed_ns < day else _SEASONS["D"]
        return _SEASONS[self._unit.rstrip("SE") or self._unit]

    def index(self, timestamps: pd.DatetimeIndex) -> IntArray:
        """Grid index at or before each timestamp (use ``on_grid`` to know which are exact)."""
        moments = pd.DatetimeIndex(timestamps).as_unit("ns")
        if self._fixed_ns is not None:
            origin = pd.Timestamp("2001-01-01").value
            return np.floor_divide(moments.asi8 - origin, self._fixed_ns)
        if self._unit == "B":
            days = (moments.asi8 - pd.Timestamp("2001-01-01").value) // (86_400 * 10**9)
            week, weekday = np.divmod(days, 7)
            return week * 5 + np.minimum(weekday, 4)
        if self._unit == "W":
            anchor = self.offset.weekday  # 0 = Monday
            days = (moments.normalize().asi8 - pd.Timestamp("2001-01-01").value) // (86_400 * 10**9)
            return np.floor_divide(days - anchor, 7)
        months = (
            (moments.year.to_numpy().astype(np.int64) - 2001) * 12 + moments.month.to_numpy() - 1
        )
        if self._unit.startswith("M"):
            index = months
        else:
            index = np.floor_divide(months - self._quarter_phase, 3)
        # Month and quarter ends: a timestamp before the label belongs to the step before.
        return np.where(self.timestamps(index).asi8 > moments.asi8, index - 1, index)

    @staticmethod
    def _days_after_origin(days: IntArray) -> pd.DatetimeIndex:
        moments = np.datetime64("2001-01-01") + days.astype("timedelta64[D]")
        return pd.DatetimeIndex(moments.astype("datetime64[ns]"))

    @property
    def _quarter_phase(self) -> int:
        """Month (0–2 after January) in which a quarterly step is labelled."""
        return (int(self.offset.startingMonth) - 1) % 3

    def timestamps(self, index: IntArray) -> pd.DatetimeIndex:
        """The timestamps of grid indices: the inverse of ``index`` on the grid."""
        index = np.asarray(index, dtype=np.int64)
        if self._fixed_ns is not None:
            return pd.DatetimeIndex(
                (pd.Timestamp("2001-01-01").value + index * self._fixed_ns).view("datetime64[ns]")
            )
        if self._unit == "B":
            week, weekday = np.divmod(index, 5)
            return self._days_after_origin(week * 7 + weekday)
        if self._unit == "W":
            return self._days_after_origin(index * 7 + self.offset.weekday)
        months = index if self._unit.startswith("M") else index * 3 + self._quarter_phase
        is_end = self._unit.endswith("E")
        first_of = (np.datetime64("2001-01") + (months + int(is_end))).astype("datetime64[D]")
        return pd.DatetimeIndex((first_of - int(is_end)).astype("datetime64[ns]"))

    def on_grid(self, timestamps: pd.DatetimeIndex) -> npt.NDArray[np.bool_]:
        """Which timestamps lie exactly on the grid."""
        moments = pd.DatetimeIndex(timestamps).as_unit("ns")
        return self.timestamps(self.index(moments)).asi8 == moments.asi8

    def first_from(self, moment: pd.Timestamp) -> int:
        """Index of the first grid point at or after the moment."""
        index = int(self.index(pd.DatetimeIndex([moment]))[0])
        return index if self.on_grid(pd.DatetimeIndex([moment]))[0] else index + 1
