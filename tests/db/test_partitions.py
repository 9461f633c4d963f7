"""Partitions of predictions: their names, their bounds, what is left behind."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from ts_forecast.db import partitions
from ts_forecast.quarters import Quarter

QUARTER = Quarter(2025, 4)
INSERT = (
    "INSERT INTO predictions (experiment_id, run_id, model_id, prediction_date, unique_id, horizon, "
    "predicted_value) VALUES (1, 1, 1, :date, 'a', 1, 1)"
)


def test_names__of_quarter_and_slice() -> None:
    assert partitions.quarter_table(QUARTER) == "predictions_2025_q4"
    assert partitions.leaf_table(QUARTER, 12) == "predictions_2025_q4_e12"


def test_ensure_quarter__twice__one_half_open_partition(engine: Engine) -> None:
    with engine.begin() as connection:
        names = {partitions.ensure_quarter(connection, QUARTER) for _ in range(2)}
        partitions.ensure_quarter(connection, QUARTER.shift(1))
        bounds = connection.scalar(
            text(
                "SELECT pg_get_expr(relpartbound, oid) FROM pg_class "
                "WHERE relname = 'predictions_2025_q4'"
            )
        )

        assert names == {"predictions_2025_q4"}
        assert partitions.is_attached(connection, "predictions_2025_q4")
        assert not partitions.exists(connection, "predictions_2025_q3")
    assert bounds == "FOR VALUES FROM ('2025-10-01 00:00:00') TO ('2026-01-01 00:00:00')"


def test_leaf__attached_and_detached__comes_and_goes(engine: Engine) -> None:
    leaf = partitions.leaf_table(QUARTER, 1)
    with engine.begin() as connection:
        partitions.ensure_quarter(connection, QUARTER)
        partitions.create_detached_leaf(connection, leaf)
        assert partitions.exists(connection, leaf)
        assert not partitions.is_attached(connection, leaf)
        assert partitions.list_leaves(connection) == []

        partitions.finish_leaf(connection, leaf, QUARTER, 1, "sha256:x rows:0 run:1")
        partitions.attach_leaf(connection, QUARTER, leaf, 1)
        (listed,) = partitions.list_leaves(connection)
        connection.execute(text(f"ALTER TABLE {listed.quarter_table} DETACH PARTITION {leaf}"))
        assert partitions.list_leaves(connection) == []

    assert (listed.name, listed.quarter_table) == (leaf, "predictions_2025_q4")
    assert (listed.comment, listed.rows_estimate) == ("sha256:x rows:0 run:1", 0)
    assert listed.size_bytes > 0


@pytest.mark.parametrize("date", ["2025-09-30 23:59:59", "2026-01-01", "2025-11-01"])
def test_predictions__no_partition_for_the_row__is_refused(engine: Engine, date: str) -> None:
    # The quarter is there in the third case, but no leaf of the pipeline.
    with engine.begin() as connection:
        partitions.ensure_quarter(connection, QUARTER)

    with pytest.raises(IntegrityError, match="no partition"), engine.begin() as connection:
        connection.execute(text(INSERT), {"date": date})


def test_orphans__of_other_slices_or_names__are_not_touched(engine: Engine) -> None:
    leaf = partitions.leaf_table(QUARTER, 1)
    unfinished = f"{leaf}_n0a1b2c3d"
    strangers = [f"{leaf}_notes", "predictions_2025_q4_e11_n0a1b2c3d", "predictions_copy"]
    with engine.begin() as connection:
        for name in [unfinished, *strangers]:
            partitions.create_detached_leaf(connection, name)

        found = partitions.orphans(connection, QUARTER, 1)

    assert unfinished in found
    assert not set(strangers) & set(found)
