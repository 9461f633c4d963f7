"""The one commit, and locks that a killed process gives back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ts_forecast.db.arrow import append_rows, read_arrow, replace_rows
from ts_forecast.db.engine import exclusive, lock_key, transaction
from ts_forecast.errors import DatabaseError

REPOSITORY = Path(__file__).parents[2]
HOLD = """
import sys, time
from ts_forecast.db.engine import create_engine, exclusive
with exclusive(create_engine(sys.argv[1]), "a", "lock"):
    print("held", flush=True)
    time.sleep(60)
"""


def names(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT experiment_name FROM experiments")))


def test_transaction__ends__commits(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))

    assert names(engine) == ["shop"]


def test_transaction__raises__leaves_nothing(engine: Engine) -> None:
    with pytest.raises(RuntimeError), transaction(engine) as session:
        session.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))
        raise RuntimeError

    assert names(engine) == []


def test_exclusive__holder_killed__is_free_at_once(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with exclusive(engine, "a", "lock", wait=False) as is_held:
        assert not is_held
    with exclusive(engine, "another", "lock", wait=False) as is_held:
        assert is_held

    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    begun = time.monotonic()

    with exclusive(engine, "a", "lock") as is_held:
        assert is_held
        assert time.monotonic() - begun < 5


def test_exclusive__left__is_free(engine: Engine) -> None:
    with exclusive(engine, "a"):
        pass
    with exclusive(engine, "a", wait=False) as is_held:
        assert is_held


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_lock_key__is_a_signed_bigint_and_stable(one: list[str], other: list[str]) -> None:
    assert -(2**63) <= lock_key(*one) < 2**63
    assert lock_key(*one) == lock_key(*one)
    if "\x1f".join(one) != "\x1f".join(other):
        assert lock_key(*one) != lock_key(*other)


def test_arrow__round_trip__keeps_nulls_and_arrays(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shelf (n int8, v float8, a float8[], s text)"))
    rows = pa.table(
        {
            "n": pa.array([1, 2], pa.int64()),
            "v": pa.array([None, 2.5]),
            "a": pa.array([[1.0, 2.0], None]),
            "s": pa.array(["ä", ""]),
        }
    )

    append_rows(engine, "shelf", rows)

    assert read_arrow(engine, "SELECT * FROM shelf ORDER BY n").to_pylist() == rows.to_pylist()
    assert read_arrow(engine, "SELECT n FROM shelf WHERE n = $1", [2]).to_pylist() == [{"n": 2}]
    replace_rows(engine, "shelf", rows.slice(1), comment="one row")
    assert read_arrow(engine, "SELECT count(*) AS n FROM shelf").to_pylist() == [{"n": 1}]


def test_append_rows__many__all_arrive_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ts_forecast.db.arrow._ROWS_A_CONNECTION", 10)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shelf (n int8 UNIQUE CHECK (n <> 1000))"))

    for first, count in ((0, 31), (100, 9), (200, 0), (300, 400)):
        append_rows(
            engine, "shelf", pa.table({"n": pa.array(range(first, first + count), pa.int64())})
        )
    with pytest.raises(DatabaseError, match="shelf"):
        append_rows(engine, "shelf", pa.table({"n": range(980, 1010)}))

    found = read_arrow(engine, "SELECT count(*) AS n, sum(n) AS total FROM shelf WHERE n < 980")
    wanted = [*range(31), *range(100, 109), *range(300, 700)]
    assert found.to_pylist()[0]["n"] == len(wanted)
    assert int(found.to_pylist()[0]["total"]) == sum(wanted)


def test_replace_rows__refused__keeps_the_old_ones(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shelf (n int8 CHECK (n > 0))"))
    append_rows(engine, "shelf", pa.table({"n": [1, 2]}))

    with pytest.raises(DatabaseError, match="shelf"):
        replace_rows(engine, "shelf", pa.table({"n": [3, -1]}), comment="refused")

    assert read_arrow(engine, "SELECT count(*) AS n FROM shelf").to_pylist() == [{"n": 2}]
