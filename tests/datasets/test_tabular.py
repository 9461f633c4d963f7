"""Files as files: formats, encodings, headers; what is damaged is refused by its path."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ts_forecast.datasets.tabular import file_format, first_row_number, read_table
from ts_forecast.errors import SourceError

CONTENT = "unique_id,ds,y\nWien,2024-01-01,1.5\nKöln,2024-01-02,\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.pq", "parquet"),
        ("a.ndjson", "json"),
        ("a.arrow", "feather"),
    ],
)
def test_file_format__ending__names_it(name: str, kind: str) -> None:
    assert file_format(Path(name), None) == kind
    assert file_format(Path(name), "json") == "json"


def test_file_format__unknown_ending__asks_for_the_format() -> None:
    with pytest.raises(SourceError, match=r"sales\.xls: the ending '\.xls'.*Set `format`"):
        file_format(Path("sales.xls"), None)


def test_first_row_number__csv__counts_its_header() -> None:
    assert (first_row_number("csv"), first_row_number("json")) == (2, 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_read_table__encoding_that_is_named__is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CONTENT.encode(encoding))

    table = read_table(path, kind="csv", encoding=encoding.removesuffix("-sig"))

    assert table.to_pydict() == {
        "unique_id": ["Wien", "Köln"],
        "ds": ["2024-01-01", "2024-01-02"],
        "y": ["1.5", None],
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (" a , b\n1,2\n", ["a", "b"]),
        ("a,b,\n1,2,3\n", ["a", "b", "unnamed_2"]),
        ('"a;b";c\n1;2\n', ["a;b", "c"]),
    ],
)
def test_read_table__header__is_stripped_and_unnamed_columns_are_numbered(
    text: str, names: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)

    assert read_table(path, kind="csv", delimiter=";" if ";" in text else ",").column_names == names


def test_read_table__json_array_or_lines__same_columns(tmp_path: Path) -> None:
    # The first record lacks a column, the second has two types in one.
    records = [{"id": "a"}, {"id": "a", "y": 2.5}, {"id": "b", "y": "many"}, {"id": 7, "y": None}]
    array, lines = tmp_path / "a.json", tmp_path / "a.jsonl"
    array.write_text(json.dumps(records))
    lines.write_text("\n".join(map(json.dumps, records)))

    tables = [read_table(path, kind="json") for path in (array, lines)]

    assert tables[0].to_pydict() == {
        "id": ["a", "a", "b", "7"],
        "y": [None, "2.5", "many", None],
    }
    assert tables[1].equals(tables[0])


@pytest.mark.parametrize("content", ["[1, 2]", '[{"a": 1}', '{"a": 1}\n{"a"', "no json"])
def test_read_table__no_records__is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)

    with pytest.raises(SourceError, match=r"a\.json: this is no readable json file"):
        read_table(path, kind="json")


@pytest.mark.parametrize("kind", ["parquet", "feather"])
@pytest.mark.parametrize("keep", [1, 40, -1])
def test_read_table__truncated_anywhere__is_refused(kind: str, keep: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    frame = pd.DataFrame({"y": range(1000)})
    frame.to_parquet(path) if kind == "parquet" else frame.to_feather(path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(SourceError, match=rf"a\.{kind}: .*truncated.*Write the file again"):
        read_table(path, kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "feather"])
def test_read_table__empty_or_absent__is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    with pytest.raises(SourceError, match="there is no such file"):
        read_table(path, kind=kind)  # type: ignore[arg-type]
    path.touch()
    with pytest.raises(SourceError, match="the file is empty"):
        read_table(path, kind=kind)  # type: ignore[arg-type]


def test_read_table__parquet_without_rows__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"y": pd.Series(dtype=float)}).to_parquet(path)

    with pytest.raises(SourceError, match=r"a\.parquet: the file has a header and no rows"):
        read_table(path, kind="parquet")
