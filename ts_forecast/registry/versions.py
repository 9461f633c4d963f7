"""Versions of registered models: a name a (pipeline, model), a number a fitted model."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ts_forecast.db.engine import lock_in_transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.tables.registry import RegisteredModel


def register_version(session: Session, pipeline: Pipeline, model: str, model_id: int) -> int:
    """Register a fitted model in the stage ``staging``; its version.

    The next number of ``<pipeline>/<model>``, or the one that the model has already.
    """
    name = f"{pipeline.name}/{model}"
    # Before looking: two callers with one model must find the same version.
    lock_in_transaction(session, "registry", name)
    known = session.scalar(
        select(RegisteredModel.model_version).where(
            RegisteredModel.model_id == model_id, RegisteredModel.registered_model_name == name
        )
    )
    if known is not None:
        return known
    last = session.scalar(
        select(func.max(RegisteredModel.model_version)).where(
            RegisteredModel.registered_model_name == name
        )
    )
    version = (last or 0) + 1
    session.add(
        RegisteredModel(
            model_id=model_id,
            registered_model_name=name,
            model_version=version,
            current_stage="staging",
            previous_stage="none",
            stage_transition_at=func.current_timestamp(),
        )
    )
    session.flush()
    return version
