"""What the checks of a model found, kept with its registered version, for who chooses a champion.

The newest result of each check; the history of all checks is the event log's. Callers commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.checks.quarter import OF_MODELS, names_of
from ts_forecast.checks.result import KINDS, CheckResult
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tables.registry import RegisteredModel
from ts_forecast.tracking.experiments import experiment_id
from ts_forecast.training.quarter import trained_model

_CHECKS = "checks"


def note_results(
    session: Session,
    pipeline: Pipeline,
    quarter: Quarter,
    name: str,
    results: Sequence[CheckResult],
) -> None:
    """Keep what was found of the model that stands for the quarter; nothing where none is registered."""
    version = _version(session, pipeline, quarter, name, for_update=True)
    if version is None:
        return
    kept = version.metadata_ or {}
    found = {one.name: {"passed": one.passed, "reason": one.reason} for one in results}
    noted = {**kept, _CHECKS: {**kept.get(_CHECKS, {}), **found}}
    if noted != kept:
        version.metadata_ = noted


def passed_models(session: Session, pipeline: Pipeline, quarter: Quarter) -> set[str] | None:
    """Names of the models that may be champion of the quarter, as far as checks go.

    At least one check of the standing version passed, and no blocking one failed. None where the
    pipeline leaves out all checks of models.
    """
    wanted = names_of(pipeline, OF_MODELS)
    if not wanted:
        return None
    passed = set()
    for spec in pipeline.models:
        version = _version(session, pipeline, quarter, spec.name)
        noted = (version.metadata_ or {}).get(_CHECKS, {}) if version is not None else {}
        results = {name: noted[name]["passed"] for name in wanted if name in noted}
        has_failed = any(KINDS[name].is_blocking and not ok for name, ok in results.items())
        if any(results.values()) and not has_failed:
            passed.add(spec.name)
    return passed


def _version(
    session: Session, pipeline: Pipeline, quarter: Quarter, name: str, *, for_update: bool = False
) -> RegisteredModel | None:
    model = trained_model(session, experiment_id(session, pipeline.name), name, quarter)
    if model is None:
        return None
    query = select(RegisteredModel).where(
        RegisteredModel.model_id == model.model_id,
        RegisteredModel.registered_model_name == f"{pipeline.name}/{name}",
    )
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalar(query)
