"""The choice of a quarter's champion as a unit of work, and a run that says what it rested on.

One run stands for each quarter whose champion was chosen, also where nothing came of it, so that whoever
keeps a pipeline current sees whether scores or models have changed since. The choice itself is
``champion``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.db.engine import exclusive
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.champion import (
    ChampionChoice,
    choose_champion,
    record_production_metrics,
)
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import fingerprint
from ts_forecast.tracking.runs import (
    RunKey,
    current_run,
    find_completed,
    open_run,
    supersede,
)
from ts_forecast.training.quarter import trained_models

# Raise it when the same scores and models would lead to another choice.
CODE_VERSION = 1

Passed = Callable[[Session, Pipeline, Quarter], Collection[str] | None]


def choose_of_quarter(
    engine: Engine,
    pipeline: Pipeline,
    quarter: Quarter,
    *,
    passed: Passed,
    overrule: bool = False,
) -> ChampionChoice:
    """Choose the champion of a quarter and record it, in one transaction.

    The choice is made each time, for people may have decided meanwhile; from the same scores and models
    it leaves the same run.

    Args:
        passed: names of the models whose checks passed; None where nothing was checked.
        overrule: choose although a person promoted another.
    """

    def choose(session: Session) -> ChampionChoice:
        choice = choose_champion(
            session,
            pipeline,
            quarter,
            passed_checks=passed(session, pipeline, quarter),
            overrule=overrule,
        )
        record_production_metrics(session, experiment_id, quarter)
        _record(session, pipeline, quarter, experiment_id, choice)
        return choice

    experiment_id = in_transaction(engine, lambda session: ensure_experiment(session, pipeline))
    # One choice of a pipeline at a time: the next one sees what this one rested on.
    with exclusive(engine, "champion", str(experiment_id)):
        return in_transaction(engine, choose)


def outdated_choices(
    session: Session, pipeline: Pipeline, quarters: Collection[Quarter]
) -> list[Quarter]:
    """Later quarters whose champions were chosen from other scores or models than stand now, in order.

    A backfill's runs end in any order, so a quarter may be chosen before those ahead of it are scored.
    Asked once their own champions are chosen, whichever comes last finds the others' choices outdated,
    and all of them made again are the same as in the order of time.

    Args:
        quarters: whose scores may be new; their own choices are left out.
    """
    experiment_id = ensure_experiment(session, pipeline)
    reach = range(1, pipeline.champion.quarters + 1)
    later = {quarter.shift(ahead) for quarter in quarters for ahead in reach} - set(quarters)
    outdated = []
    for quarter in sorted(later):
        if current_run(session, experiment_id, "choose", quarter) is None:
            continue
        models = trained_models(session, pipeline, experiment_id, quarter)
        if due_choice(session, pipeline, quarter, models) is not None:
            outdated.append(quarter)
    return outdated


def due_choice(
    session: Session, pipeline: Pipeline, quarter: Quarter, models: Mapping[str, Model | None]
) -> str | None:
    """A mark of the choice that is to be made; None if it was made from what stands now.

    What stands are the scores of the quarters that count, and the models of the quarter. The mark is
    another one where the same was chosen before and then something else.

    Args:
        models: those that stand for the quarter, by name.
    """
    experiment_id = ensure_experiment(session, pipeline)
    mark = _mark(session, pipeline, quarter, experiment_id, models)
    if find_completed(session, experiment_id, mark) is not None:
        return None
    standing = current_run(session, experiment_id, "choose", quarter)
    return f"{mark} after {standing and standing.run_id}"


def _record(
    session: Session,
    pipeline: Pipeline,
    quarter: Quarter,
    experiment_id: int,
    choice: ChampionChoice,
) -> None:
    models = trained_models(session, pipeline, experiment_id, quarter)
    key = RunKey(
        experiment_id,
        "choose",
        f"{pipeline.name}/{quarter.label}/champion",
        _mark(session, pipeline, quarter, experiment_id, models),
        quarter,
    )
    run = open_run(session, key, source_type="scheduled")
    if not run.reused:
        scores = choice.scores.dropna(subset="score").set_index("model")["score"]
        told = {"outcome": choice.outcome, "champion": choice.champion, "reason": choice.reason}
        run.complete(session, {**told, "scores": scores.to_dict()})
    supersede(session, experiment_id, "choose", quarter, keep=run.run_id)


def _mark(
    session: Session,
    pipeline: Pipeline,
    quarter: Quarter,
    experiment_id: int,
    models: Mapping[str, Model | None],
) -> str:
    scored = session.scalars(
        select(Run.run_fingerprint)
        .where(
            Run.experiment_id == experiment_id,
            Run.tags["kind"].astext == "evaluate",
            Run.status == "completed",
            Run.deleted_at.is_(None),
            Run.quarter_start >= quarter.shift(-pipeline.champion.quarters).start.date(),
            Run.quarter_start < quarter.start.date(),
        )
        .order_by(Run.quarter_start)
    ).all()
    return fingerprint(
        {
            "kind": "choose",
            "code": CODE_VERSION,
            "quarter": quarter.key,
            "rule": pipeline.champion.model_dump(mode="json"),
            "metric": pipeline.champion_metric,
            "scores": list(scored),
            "models": [[name, model and model.model_id] for name, model in models.items()],
        }
    )
