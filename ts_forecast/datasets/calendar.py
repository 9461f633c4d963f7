"""Calendar columns made from timestamps: each feature a sine and a cosine of its period.

Known for any future, so they are future exogenous columns. Holidays are data of the user, not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.pipeline_columns import CalendarFeature


def calendar_values(
    ds: pd.DatetimeIndex, features: Sequence[CalendarFeature]
) -> npt.NDArray[np.float64]:
    """Sine and cosine of each feature's phase, ``[len(ds), 2 * len(features)]``.

    The phase runs from 0 at the period's start to 1 at its end: hour of the day with minutes, day of
    the week from Monday, day of the month by that month's length, ISO week of the year, month of the
    year, month of the quarter.
    """
    columns = []
    for feature in features:
        angle = 2 * np.pi * _phase(ds, feature)
        columns += [np.sin(angle), np.cos(angle)]
    return np.column_stack(columns) if columns else np.empty((len(ds), 0))


def _phase(ds: pd.DatetimeIndex, feature: CalendarFeature) -> npt.NDArray[np.float64]:
    match feature:
        case "hour":
            return (ds.hour.to_numpy() + ds.minute.to_numpy() / 60) / 24
        case "weekday":
            return ds.weekday.to_numpy() / 7
        case "monthday":
            return (ds.day.to_numpy() - 1) / ds.days_in_month.to_numpy()
        case "week":
            return (ds.isocalendar().week.to_numpy(dtype=np.float64) - 1) / 53
        case "month":
            return (ds.month.to_numpy() - 1) / 12
        case "quarter":
            return ((ds.month.to_numpy() - 1) % 3) / 3
