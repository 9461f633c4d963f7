"""Trials: a search from its first combination to the best one.

Who runs them: the process of the training step, and processes beside it on slots of the host that are
free. Each takes the next trial from the ``study``, which the database keeps, so a search that was killed
goes on with what is left. What one trial does is ``trial``.
"""

from __future__ import annotations

import logging
from functools import partial

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.datasets.panel import Panel
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.search.free_slots import Crew
from ts_forecast.search.study import Study, open_study
from ts_forecast.search.trial import PARAMETERS, RUN, Work, copy_trial, run_trial
from ts_forecast.search.validation import plan_validation
from ts_forecast.settings import Settings
from ts_forecast.slots import FreeSlots
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.runs import OpenRun
from ts_forecast.training.quarter import training_fingerprint
from ts_forecast.training.search import Chosen, Search

_MARK_LENGTH = 16
_log = logging.getLogger(__name__)


def choose_parameters(
    engine: Engine,
    pipeline: Pipeline,
    spec: ModelSpec,
    search: Search,
    history: Panel,
    run: OpenRun,
    *,
    force: bool = False,
    slots: FreeSlots | None = None,
    settings: Settings | None = None,
) -> Chosen:
    """Try the search's combinations and choose the best; commits in transactions of its own.

    A search that did not end is gone on with: trials that ended are not run again, those whose process
    is gone are. A combination that fails is recorded as ``failed``, one that is pruned as ``killed``,
    and the search goes on. One that comes twice is tried once.

    Args:
        history: all that the model may see, as observed.
        run: the training run, which becomes the trials' parent. Its lock is held, so that no other
            process searches the same.
        force: fit even what is on record.
        slots: where trials may run beside this process; with ``settings``, which they open the
            database with.

    Raises:
        TrainingError: the history is too short, or every combination failed; tells why the first did.
    """
    where = f"Pipeline {pipeline.name}, model {spec.name}"
    quarter = run.key.quarter
    validation = plan_validation(pipeline, search, history, quarter, where=where)
    # Hashes the data: once a search.
    task = training_fingerprint(
        pipeline, spec.chosen({}), quarter, validation.fit, search.measure(pipeline, history)
    )
    name = f"{pipeline.name}/{spec.name} {quarter.label} {run.key.fingerprint[:_MARK_LENGTH]}"
    with open_study(engine, search, name, force=force) as study:
        work = Work(
            pipeline, spec, search, validation, task, run.key, run.run_id, study.name, force
        )
        _take_up(engine, work, study)
        crew = Crew(slots, settings, engine, work, study)
        try:
            crew.share()
            while True:
                crew.grow()
                if (asked := study.claim()) is not None:
                    run_trial(engine, work, study, asked)
                    continue
                crew.wait()
                # Of a helper that died.
                if not study.retire_lost():
                    break
        finally:
            crew.stop()
        try:
            chosen = _best(engine, work, study)
        except TrainingError:
            # Not to be found again by whoever has made room for it, say.
            study.discard()
            raise
        study.finish()
        return chosen


def trial_table(session: Session, run_id: int) -> pd.DataFrame:
    """The trials of a training run, in order.

    Returns:
        ``trial, run_id, status, pruned_at, value, seconds, error`` and a column for each parameter.
        ``value`` is missing where a trial failed or was pruned, and ``error`` says why. A combination
        that came twice stands once.
    """
    rows = session.execute(
        select(Run, Metric.metric_value)
        .outerjoin(
            Metric,
            (Metric.run_id == Run.run_id)
            & (Metric.dataset_type == "validation")
            & (Metric.metric_name == Run.tags["metric"].astext),
        )
        .where(Run.parent_run_id == run_id, Run.tags["kind"].astext == "trial")
        .order_by(Run.metadata_["trial"].as_integer(), Run.run_id)
    )
    return pd.DataFrame(
        [
            {
                "trial": (run.metadata_ or {}).get("trial"),
                "run_id": run.run_id,
                "status": "pruned" if "pruned" in (run.tags or {}) else run.status,
                "pruned_at": (run.metadata_ or {}).get("pruned_at"),
                "value": value,
                "seconds": float(run.execution_duration_seconds or 0),
                "error": run.error_message,
                **(run.metadata_ or {}).get("parameters", {}),
            }
            for run, value in rows
        ]
    )


def _take_up(engine: Engine, work: Work, study: Study) -> None:
    """Bring the study of an earlier attempt into order; of a new one, nothing is there to be."""
    lost = study.retire_lost()
    ended = {p: trial for p, trial in study.newest().items() if trial.state.is_finished()}
    for place, trial in ended.items():
        in_transaction(engine, partial(copy_trial, work=work, place=place, trial=trial))
    if lost or ended:
        _log.info(
            "%s: the search goes on with %d of %d trials; %d were lost on the way.",
            work.where, study.left(), work.search.trials, lost,
        )  # fmt: skip


def _best(engine: Engine, work: Work, study: Study) -> Chosen:
    """The combination with the least value; of equal ones the first."""
    best: Chosen | None = None
    newest = study.newest()
    for place, trial in newest.items():
        if trial.state.name != "COMPLETE" or trial.value is None:
            continue
        if best is None or trial.value < best.value:
            best = Chosen(work.spec.chosen(trial.user_attrs[PARAMETERS]), trial.value, place)
    if best is not None:
        return best
    rows = [trial.user_attrs[RUN] for trial in newest.values() if RUN in trial.user_attrs]

    def first_reason(session: Session) -> str | None:
        return session.scalar(
            select(Run.error_message)
            .where(Run.run_id.in_(rows), Run.error_message.is_not(None))
            .order_by(Run.run_id)
            .limit(1)
        )

    reason = in_transaction(engine, first_reason, read_only=True)
    raise TrainingError(
        f"{work.where}: all {work.search.trials} trials failed, the first: {reason}",
        remedy="Correct the search space.",
    )
