"""The latest forecast of each date: of several cutoffs that reach it, what the last one said.

Reading only; how a slice came to be is ``quarter``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from ts_forecast.db.arrow import read_arrow
from ts_forecast.quarters import Quarter

_COLUMNS = {
    "unique_id": "object",
    "ds": "datetime64[ns]",
    "model": "object",
    **dict.fromkeys(("predicted_value", "actual_value", "lower_bound", "upper_bound"), "float64"),
}
_QUERY = (
    "SELECT DISTINCT ON (model_name, unique_id, prediction_date) unique_id, prediction_date AS ds, "
    "model_name AS model, predicted_value, actual_value, lower_bound, upper_bound "
    "FROM predictions JOIN models USING (model_id) WHERE experiment_id = {experiment} "
    "AND prediction_date >= {start} AND prediction_date < {end} {further}"
    "ORDER BY model_name, unique_id, prediction_date, horizon"
)


def latest_forecasts(engine: Engine, experiment_id: int, quarter: Quarter) -> pd.DataFrame:
    """One forecast a (model, series, date) of a quarter: the last that was issued for it.

    Returns:
        ``unique_id, ds, model, predicted_value, actual_value, lower_bound, upper_bound``, by model,
        series and date.
    """
    query = _QUERY.format(experiment="$1", start="$2", end="$3", further="")
    rows = read_arrow(engine, query, [experiment_id, quarter.start, quarter.end])
    return rows.to_pandas().astype(_COLUMNS)


def latest_forecasts_of(
    engine: Engine, experiment_id: int, quarter: Quarter, unique_id: str
) -> pd.DataFrame:
    """``latest_forecasts`` of one series, in milliseconds."""
    further = "AND unique_id = %(series)s "
    bounds = {"experiment": experiment_id, "start": quarter.start, "end": quarter.end}
    query = _QUERY.format(further=further, **{name: f"%({name})s" for name in bounds})
    # Few rows: a connection of the pool instead of ADBC's own. One statement needs no transaction, nor
    # the two ways to the server that one costs; and the driver's binary rows, made columns here, take
    # half the time of SQLAlchemy's rows made columns by pandas.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor = connection.connection.cursor(binary=True)
        rows = cursor.execute(query, bounds | {"series": unique_id}).fetchall()
    columns = zip(*rows, strict=True) if rows else ((),) * len(_COLUMNS)
    return pd.DataFrame(
        {
            name: np.array(values, dtype=kind)
            for (name, kind), values in zip(_COLUMNS.items(), columns, strict=True)
        },
        copy=False,
    )
