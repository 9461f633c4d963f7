"""A profile of every column of a stored dataset: rows of ``dataset_features``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ts_forecast.datasets.store import load_frame
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import place
from ts_forecast.tables.dataset import Dataset, DatasetFeature

_FEW = 20


def profile_dataset(session: Session, dataset: Dataset, pipeline: Pipeline) -> list[DatasetFeature]:
    """Write the profile of a dataset; the same dataset gives the same rows again.

    Raises:
        DatasetError: its file is missing or damaged.
    """
    frame = load_frame(place(dataset.file_path), dataset.file_hash or "")
    rows = [_profile(frame, name, dataset.dataset_id, pipeline) for name in frame.columns]
    stored = (dataset.metadata_ or {}).get("companions", {}).get("static")
    if stored is not None:
        static = load_frame(place(stored["path"]), stored["sha256"])
        rows += [
            _profile(static, name, dataset.dataset_id, pipeline)
            for name in static.columns
            if name != "unique_id"
        ]
    statement = insert(DatasetFeature)
    kept = {"dataset_id", "feature_name"}
    statement = statement.on_conflict_do_update(
        constraint="uq_dataset_feature",
        set_={name: statement.excluded[name] for name in rows[0] if name not in kept},
    )
    session.execute(statement, rows)
    return list(
        session.scalars(
            select(DatasetFeature)
            .where(DatasetFeature.dataset_id == dataset.dataset_id)
            .order_by(DatasetFeature.feature_id)
            .execution_options(populate_existing=True)
        )
    )


def profile_table(features: Sequence[DatasetFeature]) -> pd.DataFrame:
    """The profile for people: a row a column."""
    return pd.DataFrame(
        [
            {
                "column": feature.feature_name,
                "role": feature.exogenous_type or feature.feature_role,
                "missing": feature.missing_count,
                "unique": feature.num_unique_values,
                "min": feature.min_value,
                "mean": feature.mean_value,
                "median": feature.median_value,
                "max": feature.max_value,
                "std": feature.std_value,
                "correlation with y": feature.correlation_with_target,
            }
            for feature in features
        ]
    )


def _profile(frame: pd.DataFrame, name: str, dataset_id: int, pipeline: Pipeline) -> dict[str, Any]:
    column = frame[name]
    missing = int(column.isna().sum())
    exogenous = _exogenous_type(name, pipeline)
    row: dict[str, Any] = {
        "dataset_id": dataset_id,
        "feature_name": name,
        "feature_type": {"unique_id": "categorical", "ds": "datetime"}.get(name, "numeric"),
        "data_type": {"unique_id": "string", "ds": "timestamp"}.get(name, "double"),
        "min_value": None,
        "max_value": None,
        "mean_value": None,
        "median_value": None,
        "std_value": None,
        "num_unique_values": int(column.nunique()),
        "unique_values": None,
        "missing_count": missing,
        "missing_percentage": round(100 * missing / max(len(column), 1), 2),
        "feature_role": {"unique_id": "id", "ds": "timestamp", "y": "target"}.get(name, "feature"),
        "is_target": name == "y",
        "is_exogenous": exogenous is not None,
        "exogenous_type": exogenous,
        "correlation_with_target": None,
    }
    if row["feature_type"] == "numeric":
        row |= {
            "min_value": _finite(column.min()),
            "max_value": _finite(column.max()),
            "mean_value": _finite(column.mean()),
            "median_value": _finite(column.median()),
            "std_value": _finite(column.std()),
        }
        if name != "y" and "y" in frame and column.nunique() > 1 and frame["y"].nunique() > 1:
            row["correlation_with_target"] = _finite(column.corr(frame["y"]))
    if row["num_unique_values"] <= _FEW and name != "ds":
        row["unique_values"] = sorted(column.dropna().unique().tolist())
    return row


def _exogenous_type(name: str, pipeline: Pipeline) -> str | None:
    for role in ("future", "historic", "static"):
        if name in getattr(pipeline.exogenous, role):
            return role
    return None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
