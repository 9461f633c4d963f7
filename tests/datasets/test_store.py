"""Content-addressed files: one name and one content; damage is seen and mended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_forecast.datasets.store import file_sha256, hash_table, load_frame, store_frame
from ts_forecast.errors import DatasetError


def frame(values: list[float] | None = None) -> pd.DataFrame:
    y = [1.5, np.nan, -0.25] if values is None else values
    return pd.DataFrame(
        {"unique_id": "a", "ds": pd.date_range("2024-01-01", periods=len(y)), "y": y}
    )


def test_store_frame__then_load_frame__is_equal(tmp_path: Path) -> None:
    stored = store_frame(tmp_path, "2024-Q1", frame())

    assert stored.path.name == f"2024-Q1.{stored.content_hash[:12]}.parquet"
    assert (stored.rows, stored.size_bytes) == (3, stored.path.stat().st_size)
    loaded = load_frame(stored.path, stored.file_hash)
    pd.testing.assert_frame_equal(loaded, frame(), check_dtype=False)
    assert loaded["y"].dtype == np.float64


def test_store_frame__again__leaves_the_file_alone(tmp_path: Path) -> None:
    first = store_frame(tmp_path, "q", frame())
    before = first.path.stat().st_mtime_ns

    assert store_frame(tmp_path, "q", frame()) == first
    assert first.path.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]


@pytest.mark.parametrize("damage", [b"", b"PAR1 no more", None])
def test_store_frame__file_of_that_name_is_damaged__is_written_again(
    damage: bytes | None, tmp_path: Path
) -> None:
    first = store_frame(tmp_path, "q", frame())
    right = first.path.read_bytes()
    if damage is None:
        # Well-formed, but other rows.
        frame([9.0, 9.0, 9.0]).to_parquet(first.path)
    else:
        first.path.write_bytes(damage)

    assert store_frame(tmp_path, "q", frame()) == first
    assert first.path.read_bytes() == right


def test_load_frame__absent_or_altered__is_refused(tmp_path: Path) -> None:
    stored = store_frame(tmp_path, "q", frame())
    with pytest.raises(DatasetError, match=r"is not what was stored.*materialize"):
        load_frame(stored.path, "0" * 64)
    stored.path.unlink()
    with pytest.raises(DatasetError, match=r"is missing.*[Mm]aterialize"):
        load_frame(stored.path, stored.file_hash)


def test_file_sha256__file_changes__changes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    one = file_sha256(path)
    path.write_bytes(b"other")

    assert file_sha256(path) != one


@given(
    st.lists(st.tuples(st.text(max_size=3), st.floats(allow_nan=False)), min_size=1), st.integers()
)
def test_hash_table__chunks__do_not_matter_but_values_do(
    rows: list[tuple[str, float]], at: int
) -> None:
    ids, values = zip(*rows, strict=True)
    table = pa.table({"unique_id": pa.array(ids, pa.string()), "y": pa.array(values)})
    cut = at % (len(rows) + 1)
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    changed = table.set_column(1, "y", pa.array([*values[:-1], None], pa.float64()))

    assert hash_table(chunked) == hash_table(table)
    assert hash_table(changed) != hash_table(table)
