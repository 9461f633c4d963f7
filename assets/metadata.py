"""From pandas and domain results to metadata that Dagster shows.

Dagster plots top-level ints and floats over partitions and refuses most NumPy scalars, so numbers are
converted here. Drawings are ``plots``.
"""

import math
from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ts_forecast.tables import Base

_MAX_ROWS = 50


def numbers(values: Mapping[str, Any]) -> dict[str, int | float]:
    """Plain finite numbers of a mapping; others are left out, since Dagster cannot plot them."""
    plain: dict[str, int | float] = {}
    for name, value in values.items():
        if isinstance(value, (bool, np.bool_)):
            continue
        if isinstance(value, (int, np.integer)):
            plain[name] = int(value)
        elif isinstance(value, (float, np.floating)) and math.isfinite(value):
            plain[name] = float(value)
    return plain


def table(frame: pd.DataFrame) -> dg.TableMetadataValue:
    """The first rows of a frame as a table in the UI."""
    records = []
    for row in frame.head(_MAX_ROWS).to_dict(orient="records"):
        records.append(dg.TableRecord({str(key): _cell(value) for key, value in row.items()}))
    columns = [
        dg.TableColumn(str(name), type=_type_name(frame[name].dtype)) for name in frame.columns
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def column_schema(columns: Mapping[str, tuple[str, str]]) -> dg.TableSchema:
    """A column schema from ``{name: (type, description)}``."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=kind, description=text)
            for name, (kind, text) in columns.items()
        ]
    )


def table_schema(source: type[Base]) -> dg.TableSchema:
    """The column schema of a database table, with its column comments."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                type=str(column.type).lower(),
                description=column.comment,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in source.__table__.columns
        ]
    )


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or value is pd.NaT:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return str(value)


def _type_name(dtype: Any) -> str:
    match getattr(dtype, "kind", "O"):
        case "f":
            return "float"
        case "i" | "u":
            return "int"
        case "b":
            return "bool"
        case _:
            return "string"
