"""The champion of a quarter: which of its models goes into production.

Walk-forward: what counts is how well each model forecast the quarters before it, each time by a version
that had not seen them. Nothing that was measured in the quarter itself or later is read for the choice.
What a stage is and who may change it is ``registry.stages``; who asks is the asset or a command.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from ts_forecast.evaluation.leaderboard import quarter_accuracy
from ts_forecast.evaluation.scoring import ALL
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry.stages import (
    Decision,
    Verdict,
    is_pinned,
    is_refused,
    lock_quarter,
    promote,
    propose,
)
from ts_forecast.tables.registry import RegisteredModel
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import current_run
from ts_forecast.training.past_errors import complete_means, past_errors
from ts_forecast.training.quarter import trained_model

Outcome = Literal["promoted", "kept", "waiting", "refused", "none"]
BY = "ts-forecast"
"""Who decides where no person does."""


@dataclass(frozen=True)
class ChampionChoice:
    """What became of choosing.

    Attributes:
        outcome: ``promoted`` now; ``kept``, what is in production stays, for it is the best or a person
            put it there; ``waiting`` for a person's approval; ``refused``, the best is worse than the
            champion so far; ``none``, no model can be compared.
        model, version: of the best model; None if there is none.
        champion: what is in production of the quarter now, by name and version; None for nothing.
        reason: for people, one sentence.
        scores: ``model, score, quarters, note``, the best first; ``note`` says why one was left out.
    """

    outcome: Outcome
    model: str | None
    version: int | None
    champion: str | None
    reason: str
    scores: pd.DataFrame = field(repr=False)


def choose_champion(
    session: Session,
    pipeline: Pipeline,
    quarter: Quarter,
    *,
    passed_checks: Collection[str] | None = None,
    overrule: bool = False,
) -> ChampionChoice:
    """Choose the champion of a quarter and put it into production, or propose it where people decide.

    Compared are the models of the pipeline that are trained for the quarter and were scored in each of
    the quarters that count; a new model waits until it was. The smallest mean error wins, the champion
    so far where two are equal. It is refused if it is worse than the champion so far by more than the
    margin, which happens where that one cannot be taken. What a person promoted stays until a person
    changes it; a later version of the same model takes its place.

    Args:
        passed_checks: names of the models whose checks passed; None where nothing was checked.
        overrule: choose although a person promoted another.
    """
    experiment_id = ensure_experiment(session, pipeline)
    # First of all: nobody changes the quarter's stages between looking and deciding.
    versions = lock_quarter(session, experiment_id, quarter.start.date())
    current = next((one for one in versions if one.current_stage == "production"), None)
    pinned = current if current is not None and is_pinned(current) and not overrule else None
    errors = past_errors(session, pipeline, experiment_id, quarter)
    standing = _standing_versions(session, pipeline, experiment_id, quarter, versions)
    means = complete_means(errors)
    names = [spec.name for spec in pipeline.models]
    notes = {
        name: _why_not(name, standing, means, passed_checks, pipeline, pinned) for name in names
    }
    incumbent = _incumbent(session, pipeline, experiment_id, quarter, current)
    able = [name for name in names if not notes[name]]
    scores = _score_table(names, means, errors, notes)
    if not able:
        reason = "no quarter that counts was scored" if errors.empty else "no model can be taken"
        if pinned is not None:
            reason = f"{_person(pinned)} promoted it"
        outcome: Outcome = "kept" if current is not None else "none"
        return ChampionChoice(outcome, None, None, _label(current), f"{reason}.", scores)
    best = min(
        able, key=lambda name: (means.get(name, math.inf), name != incumbent, names.index(name))
    )
    chosen = standing[best]
    reason = _reason(best, pipeline, means, errors)
    told = (best, chosen.model_version)
    if current is not None and chosen.registry_id == current.registry_id:
        return ChampionChoice("kept", *told, _label(current), reason, scores)
    bound = means.get(incumbent or "", math.inf) * (1 + pipeline.champion.margin)
    if pinned is None and means[best] > bound:
        reason += f" It is worse than {incumbent} by more than the margin: above {bound:.4g}."
        return ChampionChoice("refused", *told, _label(current), reason, scores)
    evidence = {
        "metric": pipeline.champion_metric,
        "quarters": list(errors.index),
        "scores": means,
    }
    if pipeline.champion.approval:
        if (chosen.metadata_ or {}).get("candidate") != evidence:
            propose(session, chosen, evidence)
        return ChampionChoice("waiting", *told, _label(current), reason, scores)
    # A pin is on the model: its next version inherits it.
    verdict: Verdict = "promoted" if pinned is not None else "chosen"
    promote(session, chosen, Decision(BY, reason), verdict, evidence=evidence)
    return ChampionChoice("promoted", *told, _label(chosen), reason, scores)


def record_production_metrics(session: Session, experiment_id: int, quarter: Quarter) -> None:
    """Note what was measured of the version in production, once the choice is made.

    For people; no choice of this quarter reads it.
    """
    run = current_run(session, experiment_id, "evaluate", quarter)
    champion = session.scalar(
        select(RegisteredModel).where(
            RegisteredModel.experiment_id == experiment_id,
            RegisteredModel.quarter_start == quarter.start.date(),
            RegisteredModel.current_stage == "production",
        )
    )
    if run is None or champion is None:
        return
    name = champion.registered_model_name.partition("/")[2]
    accuracy = quarter_accuracy(session, run.run_id)
    own = accuracy[(accuracy["model"] == name) & (accuracy["horizon_bucket"] == ALL)]
    measured = dict(zip(own["metric"].tolist(), own["mean"].tolist(), strict=True))
    if champion.production_metrics != measured:
        champion.production_metrics = measured


def _standing_versions(
    session: Session,
    pipeline: Pipeline,
    experiment_id: int,
    quarter: Quarter,
    versions: Sequence[RegisteredModel],
) -> dict[str, RegisteredModel]:
    """The version of each model that the quarter is forecast with."""
    by_key = {(one.registered_model_name, one.model_id): one for one in versions}
    standing = {}
    for spec in pipeline.models:
        model = trained_model(session, experiment_id, spec.name, quarter)
        if model is None:
            continue
        version = by_key.get((f"{pipeline.name}/{spec.name}", model.model_id))
        if version is not None:
            standing[spec.name] = version
    return standing


def _why_not(
    name: str,
    standing: dict[str, RegisteredModel],
    means: dict[str, float],
    passed_checks: Collection[str] | None,
    pipeline: Pipeline,
    pinned: RegisteredModel | None,
) -> str:
    """Why a model cannot be the champion; empty if it can."""
    if name not in standing:
        return "not trained"
    if is_refused(standing[name]):
        return "a person refused it"
    if pinned is not None:
        is_it = pinned.registered_model_name == f"{pipeline.name}/{name}"
        return "" if is_it else f"{_person(pinned)} promoted another"
    if passed_checks is not None and name not in passed_checks:
        return "no check of it passed, or a blocking one failed"
    if name not in means:
        return "not scored in each quarter"
    return ""


def _incumbent(
    session: Session,
    pipeline: Pipeline,
    experiment_id: int,
    quarter: Quarter,
    current: RegisteredModel | None,
) -> str | None:
    """The name of the champion so far: of the quarter, or else of the last one before it."""
    champion = (
        current
        or session.scalars(
            select(RegisteredModel)
            .where(
                RegisteredModel.experiment_id == experiment_id,
                RegisteredModel.quarter_start < quarter.start.date(),
                RegisteredModel.current_stage == "production",
            )
            .order_by(RegisteredModel.quarter_start.desc())
            .limit(1)
        ).first()
    )
    if champion is None:
        return None
    return champion.registered_model_name.removeprefix(f"{pipeline.name}/")


def _reason(best: str, pipeline: Pipeline, means: dict[str, float], errors: pd.DataFrame) -> str:
    if best not in means:
        return f"{best}: a person promoted it."
    span = f"{errors.index[0]} to {errors.index[-1]}" if len(errors) > 1 else str(errors.index[0])
    return f"{best}: {pipeline.champion_metric} {means[best]:.4g} over {span}."


def _score_table(
    names: list[str], means: dict[str, float], errors: pd.DataFrame, notes: dict[str, str]
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "score": means.get(name, math.nan),
            "quarters": int(errors[name].notna().sum()) if name in errors else 0,
            "note": notes[name],
        }
        for name in names
    ]
    frame = pd.DataFrame(rows, columns=["model", "score", "quarters", "note"])
    return frame.sort_values("score", kind="stable", ignore_index=True)


def _label(version: RegisteredModel | None) -> str | None:
    if version is None:
        return None
    return f"{version.registered_model_name} {version.model_version}"


def _person(version: RegisteredModel) -> str:
    return version.approved_by or "a person"
