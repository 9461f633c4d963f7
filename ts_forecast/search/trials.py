"""Trials: the runs of a search, one for each combination that is tried.

Each is a child of the training run, with its parameters and its value, and on record as soon as it
ends. A combination whose value is on record is not fitted again: the sampler is seeded, so a search
that was killed, or that is given more trials, asks for the same combinations once more and copies
what the earlier one measured.
"""

from __future__ import annotations

import logging

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.datasets.panel import Panel
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import EvaluationError, PredictionError, TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.search.sampling import new_study, suggest
from ts_forecast.search.validation import Validation, plan_validation, validation_score
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.fingerprint import fingerprint
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.runs import OpenRun, RunKey, tracked_run
from ts_forecast.training.quarter import training_fingerprint
from ts_forecast.training.search import Chosen, Search
from ts_forecast.training.trainer import fit_model

# What a combination may do wrong; anything else is a fault of the search itself.
_FAILURES = (TrainingError, PredictionError, EvaluationError)
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
) -> Chosen:
    """Try the search's combinations and choose the best; commits in transactions of its own.

    A combination that fails is recorded as ``failed`` and the search goes on. One that comes twice is
    tried once.

    Args:
        history: all that the model may see, as observed.
        run: the training run, which becomes the trials' parent.
        force: fit even what is on record.

    Raises:
        TrainingError: the history is too short, or every combination failed; tells why the first did.
    """
    import optuna

    where = f"Pipeline {pipeline.name}, model {spec.name}"
    quarter = run.key.quarter
    validation = plan_validation(pipeline, search, history, quarter, where=where)
    # Hashes the data: once a search.
    task = training_fingerprint(
        pipeline, spec.chosen({}), quarter, validation.fit, search.measure(pipeline, history)
    )
    study = new_study(search)
    best: Chosen | None = None
    tried: dict[str, float | None] = {}
    reason = ""
    for number in range(search.trials):
        asked = study.ask()
        chosen = spec.chosen(suggest(asked, search, pipeline))
        mark = fingerprint({"task": task, "parameters": chosen.parameters})
        if mark not in tried:
            trial = _Trial(engine, pipeline, chosen, search, validation, run, number, mark)
            try:
                tried[mark] = trial.measure(force=force)
            except _FAILURES as failure:
                tried[mark] = None
                reason = reason or str(failure)
                _log.warning("%s, trial %d failed: %s", where, number, failure)
        value = tried[mark]
        if value is None:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(asked, value)
        _log.info("%s, trial %d of %d: %s %.6g", where, number, search.trials, search.metric, value)
        if best is None or value < best.value:
            best = Chosen(chosen, value, number)
    if best is None:
        raise TrainingError(
            f"{where}: all {search.trials} trials failed, the first: {reason}",
            remedy="Correct the search space.",
        )
    return best


def trial_table(session: Session, run_id: int) -> pd.DataFrame:
    """The trials of a training run, in order.

    Returns:
        ``trial, run_id, status, value, seconds, error`` and a column for each parameter. ``value`` is
        missing where a trial failed, and ``error`` says why. A combination that came twice stands once.
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
        .order_by(Run.run_id)
    )
    return pd.DataFrame(
        [
            {
                "trial": (run.metadata_ or {}).get("trial"),
                "run_id": run.run_id,
                "status": run.status,
                "value": value,
                "seconds": float(run.execution_duration_seconds or 0),
                "error": run.error_message,
                **(run.metadata_ or {}).get("parameters", {}),
            }
            for run, value in rows
        ]
    )


class _Trial:
    """One combination: its run, and how it is measured."""

    def __init__(
        self,
        engine: Engine,
        pipeline: Pipeline,
        chosen: ModelSpec,
        search: Search,
        validation: Validation,
        parent: OpenRun,
        number: int,
        mark: str,
    ) -> None:
        self._engine, self._pipeline, self._chosen = engine, pipeline, chosen
        self._search, self._validation = search, validation
        # One row for each attempt of a search: what it copies stays with the attempt that measured it.
        attempt = {"kind": "trial", "parent": parent.run_id, "computation": mark}
        self._key = RunKey(
            experiment_id=parent.key.experiment_id,
            kind="trial",
            name=f"{chosen.name}/trial-{number:03d}",
            fingerprint=fingerprint(attempt),
            quarter=parent.key.quarter,
            parent_run_id=parent.run_id,
        )
        self._metadata = {"trial": number, "parameters": chosen.parameters, "computation": mark}

    def measure(self, *, force: bool) -> float:
        """The value: copied from the record, or measured now."""
        tags = {"model": self._chosen.name, "metric": self._search.metric}
        with tracked_run(self._engine, self._key, tags=tags, metadata=self._metadata) as run:
            # Before the fit: what was tried is known even of a trial that is killed.
            def begin(session: Session) -> tuple[int | None, list[MetricRow]]:
                parameters = {"model": self._chosen.model, **self._chosen.parameters}
                log_parameters(session, run.run_id, parameters, category="model")
                earlier = None if force else self._on_record(session)
                return earlier, [] if earlier is None else self._rows_of(session, earlier)

            earlier, found = in_transaction(self._engine, begin)
            rows = found or self._fit_and_score()
            value = next(row.value for row in rows if row.name == self._search.metric)

            def end(session: Session) -> None:
                log_metrics(session, run.run_id, rows)
                run.complete(session, {"same_as": earlier, "value": value})

            in_transaction(self._engine, end)
        return value

    def _fit_and_score(self) -> list[MetricRow]:
        fitted = fit_model(self._pipeline, self._chosen, self._validation.fit)
        value = validation_score(fitted, self._pipeline, self._search, self._validation)
        rows = [MetricRow(self._search.metric, value)]
        if curve := fitted.curves.get("train_loss"):
            rows.append(MetricRow("train_loss", curve[-1][1], curve[-1][0], "train"))
        return rows

    def _on_record(self, session: Session) -> int | None:
        """The newest completed trial of the same computation."""
        return session.scalar(
            select(Run.run_id)
            .where(
                Run.experiment_id == self._key.experiment_id,
                Run.quarter_start == self._key.quarter.start.date(),
                Run.status == "completed",
                Run.tags["kind"].astext == "trial",
                Run.metadata_["computation"].astext == self._metadata["computation"],
            )
            .order_by(Run.run_id.desc())
            .limit(1)
        )

    def _rows_of(self, session: Session, run_id: int) -> list[MetricRow]:
        rows = session.scalars(select(Metric).where(Metric.run_id == run_id))
        return [
            MetricRow(row.metric_name, row.metric_value, row.metric_step or 0, row.dataset_type)  # type: ignore[arg-type]
            for row in rows
        ]
