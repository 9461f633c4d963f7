"""Of several forecasts of a date, the one that was issued last; the same of one series as of all."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
from sqlalchemy import Engine

from tests.predictions.slices import QUARTER, make_owners, publish, table
from ts_forecast.predictions.latest import latest_forecasts, latest_forecasts_of
from ts_forecast.quarters import Quarter


def longer(rows: pa.Table, horizon: int) -> pa.Table:
    """The same dates, forecast from an earlier cutoff."""
    place = rows.schema.get_field_index("horizon")
    longer_horizon = pa.array([horizon] * rows.num_rows, pa.int32())
    return rows.set_column(place, rows.schema.field("horizon"), longer_horizon)


def test_latest_forecasts__several_cutoffs__the_shortest_horizon_of_each(engine: Engine) -> None:
    make_owners(engine)
    publish(engine, pa.concat_tables([longer(table(3, 9.0), 7), table(3, 1.0)]))

    everything = latest_forecasts(engine, 1, QUARTER)
    one = latest_forecasts_of(engine, 1, QUARTER, "s000001")

    assert everything["unique_id"].tolist() == ["s000000", "s000001", "s000002"]
    assert set(everything["predicted_value"]) == {1.0}
    pd.testing.assert_frame_equal(
        one, everything[everything["unique_id"] == "s000001"].reset_index(drop=True)
    )


def test_latest_forecasts__nothing_there__the_same_columns(engine: Engine) -> None:
    make_owners(engine)
    publish(engine, table(1))

    nothing = latest_forecasts(engine, 1, Quarter(2031, 1))

    assert nothing.empty
    pd.testing.assert_frame_equal(latest_forecasts_of(engine, 1, QUARTER, "unknown"), nothing)
    found = latest_forecasts(engine, 1, QUARTER)
    assert list(found.dtypes.astype(str)) == list(nothing.dtypes.astype(str))
