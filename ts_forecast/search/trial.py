"""One trial: a combination's run, measured now, copied from the record, or ended early.

A run of its own under the training run, with its parameters and its value, on record as soon as it
ends. While a model is fitted, what it would score if the fit ended now is measured on a grid of steps
that all trials of the search share, by the search's own metric on its own window: under different
scalers training losses cannot be compared, these can.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.db.retry import in_transaction
from ts_forecast.db.text import one_line
from ts_forecast.errors import EvaluationError, PredictionError, PrunedError, TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.search.sampling import suggest
from ts_forecast.search.study import Study
from ts_forecast.search.validation import Validation, validation_score
from ts_forecast.search_space import Choice, Range
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.experiment import Run
from ts_forecast.tracking.fingerprint import fingerprint
from ts_forecast.tracking.measurements import MetricRow, log_metrics, log_parameters
from ts_forecast.tracking.records import RunRecord, record_run
from ts_forecast.tracking.runs import OpenRun, RunKey, end_run, tracked_run
from ts_forecast.training.options import FitOptions
from ts_forecast.training.search import Search
from ts_forecast.training.trainer import FittedModel, fit_model

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

# What a combination may do wrong; anything else is a fault of the search itself.
FAILURES = (TrainingError, PredictionError, EvaluationError)
# Of a trial in the study: what it tries, and where its row is.
MARK, PARAMETERS, RUN = "computation", "parameters", "run_id"
# A trial is looked at so often, if it makes as many steps as any may.
_LOOKS = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What all trials of a search share; pickles, for the processes that help.

    Attributes:
        task: fingerprint of all that decides a trial's value, beside its parameters.
        parent: the training run.
        study: name of the study.
        force: measure even what is on record.
    """

    pipeline: Pipeline
    spec: ModelSpec
    search: Search
    validation: Validation
    task: str
    parent: RunKey
    parent_id: int
    study: str
    force: bool

    @property
    def where(self) -> str:
        """Names pipeline and model in messages."""
        return f"Pipeline {self.pipeline.name}, model {self.spec.name}"

    def key(self, place: int, mark: str) -> RunKey:
        """Of a trial's run: one for each attempt of a search."""
        attempt = {"kind": "trial", "parent": self.parent_id, "computation": mark}
        return RunKey(
            experiment_id=self.parent.experiment_id,
            kind="trial",
            name=f"{self.spec.name}/trial-{place:03d}",
            fingerprint=fingerprint(attempt),
            quarter=self.parent.quarter,
            parent_run_id=self.parent_id,
        )

    @property
    def tags(self) -> dict[str, str]:
        """Of a trial's run."""
        return {"model": self.spec.name, "metric": self.search.metric}

    @property
    def by_step(self) -> str:
        """The metric's name where it is measured while a model is fitted."""
        return f"{self.search.metric}_by_step"


def run_trial(engine: Engine, work: Work, study: Study, asked: Trial, *, slot: str = "") -> None:
    """Run a trial that was claimed, and tell the study; commits in transactions of its own.

    A combination that fails or is pruned is no error here.

    Args:
        slot: whose slot of the host it runs on, where not the search's own.
    """
    from optuna.trial import TrialState

    newest = study.newest()
    place = next(p for p, trial in newest.items() if trial.number == asked.number)
    chosen = work.spec.chosen(suggest(asked, work.search, work.pipeline))
    mark = fingerprint({"task": work.task, "parameters": chosen.parameters})
    asked.set_user_attr(MARK, mark)
    asked.set_user_attr(PARAMETERS, chosen.parameters)
    twin = next((t for t in newest.values() if _is_twin(t, asked, mark)), None)
    if twin is not None:
        # One row suffices for a combination that comes twice.
        _tell_as(study, asked, twin)
        return
    trial = _Trial(engine, work, chosen, asked, place, mark, slot)
    said = f"{work.where}, trial {place}"
    try:
        value = trial.measure()
    except PrunedError as pruned:
        _log.info("%s was ended early: %s", said, pruned)
        study.optuna.tell(asked, state=TrialState.PRUNED)
    except FAILURES as failure:
        _log.warning("%s failed: %s", said, failure)
        study.optuna.tell(asked, state=TrialState.FAIL)
    else:
        study.optuna.tell(asked, value)
        _log.info("%s of %d: %s %.6g", said, work.search.trials, work.search.metric, value)


def copy_trial(session: Session, work: Work, place: int, trial: FrozenTrial) -> None:
    """Give a trial that an earlier attempt of the search ended a row under this one too."""
    run_id = trial.user_attrs.get(RUN)
    row = None if run_id is None else session.get(Run, run_id)
    if row is None or row.parent_run_id == work.parent_id:
        return
    metadata = row.metadata_ or {}
    kept: dict[str, Any] = {
        name: metadata[name] for name in ("value", "pruned_at") if name in metadata
    }
    record = RunRecord(
        work.key(place, trial.user_attrs[MARK]),
        parameters={"model": work.spec.kind.searches, **trial.user_attrs[PARAMETERS]},
        metrics=_rows_of(session, row.run_id),
        status="killed" if row.status == "running" else row.status,  # type: ignore[arg-type]
        error=row.error_message,
        tags={**work.tags, **({"pruned": "true"} if "pruned" in (row.tags or {}) else {})},
        metadata={
            **_metadata(work, place, trial.user_attrs[MARK], trial.user_attrs[PARAMETERS]),
            "same_as": row.run_id,
            **kept,
        },
    )
    record_run(session, record)


def look_every(work: Work) -> int:
    """Steps between two looks at a fit: a share of the most that a trial of this search may make."""
    domain: Any = {**work.search.space.domains, **work.search.fixed}.get("max_steps")
    if isinstance(domain, Choice):
        values: Any = domain.values
        most = max(int(value) for value in values)
    elif isinstance(domain, Range):
        most = int(domain.high)
    elif domain is not None:
        most = int(domain)
    else:
        most = _default_steps(work.spec)
    return max(1, -(-most // _LOOKS))


def _default_steps(spec: ModelSpec) -> int:
    import inspect

    import neuralforecast.models as library

    signature = inspect.signature(getattr(library, str(spec.kind.searches)))
    return int(signature.parameters["max_steps"].default)


def _is_twin(trial: FrozenTrial, asked: Trial, mark: str) -> bool:
    is_other = trial.number != asked.number and trial.state.is_finished()
    return is_other and trial.user_attrs.get(MARK) == mark


def _tell_as(study: Study, asked: Trial, twin: FrozenTrial) -> None:
    for step, value in sorted(twin.intermediate_values.items()):
        asked.report(value, step)
    if twin.state.name == "COMPLETE":
        study.optuna.tell(asked, twin.value)
    else:
        study.optuna.tell(asked, state=twin.state)


def _metadata(work: Work, place: int, mark: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"trial": place, "parameters": parameters, "computation": mark, "study": work.study}


class _Trial:
    """One combination: its run, and how it is measured."""

    def __init__(
        self,
        engine: Engine,
        work: Work,
        chosen: ModelSpec,
        asked: Trial,
        place: int,
        mark: str,
        slot: str,
    ) -> None:
        self._engine, self._work, self._chosen, self._asked = engine, work, chosen, asked
        self._key = work.key(place, mark)
        self._metadata = _metadata(work, place, mark, chosen.parameters)
        if slot:
            self._metadata["slot"] = slot
        self._looks: list[MetricRow] = []

    def measure(self) -> float:
        """The value: copied from the record, or measured now.

        Raises:
            PrunedError: it is behind the others; its run is ``killed`` and has the tag ``pruned``.
        """
        work = self._work
        metadata = self._metadata
        with tracked_run(self._engine, self._key, tags=work.tags, metadata=metadata) as run:
            self._asked.set_user_attr(RUN, run.run_id)

            # Before the fit: what was tried is known even of a trial that is killed.
            def begin(session: Session) -> tuple[int | None, list[MetricRow]]:
                parameters = {"model": self._chosen.model, **self._chosen.parameters}
                log_parameters(session, run.run_id, parameters, category="model")
                earlier = None if work.force else self._on_record(session)
                return earlier, [] if earlier is None else _rows_of(session, earlier)

            earlier, found = in_transaction(self._engine, begin)
            try:
                if found:
                    self._replay(found)
                rows = found or self._fit_and_score()
            except PrunedError as pruned:
                self._record_pruned(run, earlier, pruned)
                raise
            value = next(row.value for row in rows if row.name == work.search.metric)

            def end(session: Session) -> None:
                log_metrics(session, run.run_id, rows)
                run.complete(session, {"same_as": earlier, "value": value})

            in_transaction(self._engine, end)
        return value

    def _fit_and_score(self) -> list[MetricRow]:
        work = self._work
        panel = work.validation.fit

        def look(step: int, model: Any) -> None:
            self._report(step, self._score(FittedModel(self._chosen, model, {}, panel.unique_ids)))

        options = FitOptions()
        if work.search.pruner != "none" and self._chosen.kind.is_neural:
            options = FitOptions(look=look, look_every=look_every(work))
        fitted = fit_model(work.pipeline, self._chosen, panel, options)
        rows = [*self._looks, MetricRow(work.search.metric, self._score(fitted))]
        if curve := fitted.curves.get("train_loss"):
            rows.append(MetricRow("train_loss", curve[-1][1], curve[-1][0], "train"))
        return rows

    def _score(self, fitted: FittedModel) -> float:
        work = self._work
        return validation_score(fitted, work.pipeline, work.search, work.validation)

    def _report(self, step: int, value: float) -> None:
        """Tell the study where the trial is, once a step: out of memory, a fit begins anew."""
        if any(row.step == step for row in self._looks):
            return
        self._looks.append(MetricRow(self._work.by_step, value, step))
        self._asked.report(value, step)
        if self._asked.should_prune():
            raise PrunedError(
                f"Pruned at step {step}: {self._work.search.metric} {value:.6g} is worse than the "
                "median of the trials that ran to their end."
            )

    def _replay(self, rows: list[MetricRow]) -> None:
        """Report what the trial on record reported: the choice is that of a search without a record."""
        if self._work.search.pruner == "none":
            return
        every = look_every(self._work)
        for row in sorted(rows, key=lambda row: row.step):
            if row.name == self._work.by_step and row.step % every == 0:
                self._report(row.step, row.value)

    def _record_pruned(self, run: OpenRun, earlier: int | None, pruned: PrunedError) -> None:
        step = self._looks[-1].step

        def record(session: Session) -> None:
            log_metrics(session, run.run_id, self._looks)
            row = session.get_one(Run, run.run_id, with_for_update=True)
            row.tags = {**(row.tags or {}), "pruned": "true"}
            row.metadata_ = {**(row.metadata_ or {}), "pruned_at": step, "same_as": earlier}
            session.flush()
            # Here, for an error would make it a failed one.
            end_run(session, run.run_id, "killed", one_line(pruned))

        in_transaction(self._engine, record)

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


def _rows_of(session: Session, run_id: int) -> list[MetricRow]:
    rows = session.scalars(select(Metric).where(Metric.run_id == run_id))
    return [
        MetricRow(row.metric_name, row.metric_value, row.metric_step or 0, row.dataset_type)  # type: ignore[arg-type]
        for row in rows
    ]
