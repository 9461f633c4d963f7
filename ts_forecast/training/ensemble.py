"""Ensembles: the forecasts of other models put together, quantile by quantile.

Training one decides the weights of its members and stores them beside the hashes of the members' files.
Weights by inverse errors come from the members' calibrations, forecasts of the last quarter of what they
may see: they are the same whatever else was materialized. Where one has no error, members weigh the same.
A member that is trained anew makes another ensemble.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.places import place
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import ArtifactStore, record_artifact, verify
from ts_forecast.registry.versions import register_version
from ts_forecast.settings import Settings
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.fingerprint import fingerprint
from ts_forecast.tracking.measurements import log_parameters
from ts_forecast.tracking.runs import OpenRun, RunKey, tracked_run
from ts_forecast.training.calibration import (
    CALIBRATION_CODE_VERSION,
    Calibration,
    has_conformal_intervals,
    load_twin,
)
from ts_forecast.training.conformal import conformal_widths
from ts_forecast.training.quarter import TrainingOutcome, outcome_of, trained_model

FloatArray = npt.NDArray[np.float64]
ENSEMBLE_CODE_VERSION = 1
"""Raise it when the same members and scores would give other forecasts."""

_FILE = "ensemble.json"
_DIGITS = 12
_FOLDER_LENGTH = 16


def train_ensemble(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    quarter: Quarter,
    *,
    force: bool = False,
) -> TrainingOutcome:
    """The ensemble that forecasts a quarter: weighed now, or the identical one on record.

    Raises:
        TrainingError: a member was not trained for the quarter.
    """

    def prepare(session: Session) -> tuple[int, dict[str, Any], list[Model]]:
        experiment = ensure_experiment(session, pipeline)
        members = _members(session, pipeline, spec, experiment, quarter)
        definition = _definition(pipeline, spec, quarter, members)
        return experiment, definition, members

    experiment, definition, members = in_transaction(engine, prepare)
    mark = fingerprint(definition)
    key = RunKey(experiment, "train", f"{pipeline.name}/{spec.name} {quarter.label}", mark, quarter)
    with tracked_run(engine, key, force=force, tags={"model": spec.name}) as run:
        if not run.reused:
            calibration = _calibration(pipeline, spec, members, definition["weights"])
            _store(engine, settings, pipeline, spec, run, mark, definition, members, calibration)

    def read(session: Session) -> TrainingOutcome:
        model = session.query(Model).filter_by(run_id=run.run_id).one()
        return outcome_of(session, pipeline, quarter, model, mark, reused=run.reused)

    return in_transaction(engine, read, read_only=True)


def ensemble_fingerprint(
    session: Session, pipeline: Pipeline, spec: ModelSpec, experiment_id: int, quarter: Quarter
) -> str:
    """What decides the ensemble: its members, their files and their errors.

    Raises:
        TrainingError: a member was not trained for the quarter.
    """
    members = _members(session, pipeline, spec, experiment_id, quarter)
    return fingerprint(_definition(pipeline, spec, quarter, members))


def inverse_errors(errors: dict[str, float]) -> dict[str, float]:
    """Weights that sum to one, the smaller the larger the error; a perfect member takes all.

    >>> inverse_errors({"a": 1.0, "b": 3.0})
    {'a': 0.75, 'b': 0.25}
    """
    perfect = [name for name, error in errors.items() if error == 0]
    if perfect:
        return {name: (name in perfect) / len(perfect) for name in errors}
    inverse = {name: 1 / error for name, error in errors.items()}
    total = sum(inverse.values())
    return {name: round(value / total, _DIGITS) for name, value in inverse.items()}


def load_weights(folder: Path) -> dict[str, float]:
    """The weights of an ensemble's members, from its folder, whose hash the caller has verified."""
    weights: dict[str, float] = json.loads((folder / _FILE).read_text(encoding="utf-8"))["weights"]
    return weights


def combine(
    spec: ModelSpec, weights: dict[str, float], outputs: dict[str, FloatArray]
) -> FloatArray:
    """The ensemble's outputs from its members', each ``[pairs, horizon, outputs]``.

    A quantile that a member does not give is NaN; quantiles of members that do not cross do not here.
    The trimmed mean is of all but the lowest and the highest member (Jose and Winkler 2008), of each
    forecast anew.
    """
    members = np.stack([outputs[name] for name in spec.of])
    if spec.ensemble == "median":
        return np.median(members, axis=0)
    if spec.ensemble == "trimmed_mean":
        inner = np.sort(members, axis=0)[1:-1].mean(axis=0)
        return np.where(np.isnan(members).any(axis=0), np.nan, inner)
    share = np.array([weights[name] for name in spec.of])
    return np.tensordot(share / share.sum(), members, axes=1)


def _members(
    session: Session, pipeline: Pipeline, spec: ModelSpec, experiment_id: int, quarter: Quarter
) -> list[Model]:
    members = []
    for name in spec.of:
        model = trained_model(session, experiment_id, name, quarter)
        if model is None:
            raise TrainingError(
                f"Pipeline {pipeline.name}, ensemble {spec.name}, {quarter.label}: its member {name} "
                "was never trained.",
                remedy=f"Materialize {pipeline.name}/trained_models/{name} for {quarter.key}.",
            )
        members.append(model)
    return members


def _definition(
    pipeline: Pipeline, spec: ModelSpec, quarter: Quarter, members: list[Model]
) -> dict[str, Any]:
    """All that decides the forecasts; stored as it is."""
    weights = dict.fromkeys(spec.of, round(1 / len(spec.of), _DIGITS))
    errors: dict[str, float | None] = {}
    if spec.ensemble == "inverse_error":
        measured = {m.model_name: (m.metadata_ or {}).get("calibration", {}) for m in members}
        errors = {name: found.get("error") for name, found in measured.items()}
        known = {name: error for name, error in errors.items() if error is not None}
        if len(known) == len(errors):
            weights = inverse_errors(known)
    intervals = {"calibration": CALIBRATION_CODE_VERSION, "levels": list(pipeline.levels)}
    return {
        **(intervals if has_conformal_intervals(pipeline, spec) else {}),
        "kind": "train",
        "code": ENSEMBLE_CODE_VERSION,
        "quarter": quarter.key,
        "name": spec.name,
        "ensemble": spec.ensemble,
        "members": {m.model_name: (m.metadata_ or {})["sha256"] for m in members},
        "weights": weights,
        "errors": errors,
    }


def _calibration(
    pipeline: Pipeline, spec: ModelSpec, members: list[Model], weights: dict[str, float]
) -> Calibration | None:
    """Of an ensemble with conformal intervals: what its members' twins forecast, put together."""
    if not has_conformal_intervals(pipeline, spec):
        return None
    twins = {}
    for member in members:
        stored = verify(place(member.model_file_path), (member.metadata_ or {})["sha256"])
        twin = load_twin(stored.local)
        if twin is not None:
            twins[member.model_name] = twin
    if len(twins) < len(members):
        lacking = next(m.model_name for m in members if m.model_name not in twins)
        none, zeros = (None,) * pipeline.horizon, (0,) * pipeline.horizon
        note = f"{lacking} was not calibrated"
        return Calibration(
            dict.fromkeys(pipeline.levels, none), False, zeros, zeros, 1.0, note=note
        )
    outputs = combine(spec, weights, {name: twin.outputs for name, twin in twins.items()})
    around_point = not bool(np.isfinite(outputs).all())
    one = twins[spec.of[0]]
    widths = conformal_widths(
        outputs,
        one.actual,
        one.scales,
        pipeline.quantiles,
        pipeline.levels,
        around_point=around_point,
    )
    return Calibration(
        radii=widths.radii,
        around_point=around_point,
        scores=widths.counts,
        pooled=widths.pooled,
        typical_scale=float(np.median(one.scales)),
    )


def _store(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    spec: ModelSpec,
    run: OpenRun,
    mark: str,
    definition: dict[str, Any],
    members: list[Model],
    calibration: Calibration | None,
) -> None:
    quarter = run.key.quarter
    folder = Path("staging", pipeline.name, spec.name, quarter.key, mark[:_FOLDER_LENGTH])
    text = json.dumps(definition, indent=1, sort_keys=True)

    def write(target: Path) -> None:
        (target / _FILE).write_text(text, encoding="utf-8")
        if calibration is not None:
            calibration.save(target)

    stored = ArtifactStore(settings).write_directory(folder, write)

    def record(session: Session) -> None:
        model = Model(
            run_id=run.run_id,
            model_name=spec.name,
            model_type=spec.model,
            framework=spec.kind.framework,
            model_config={"horizon": pipeline.horizon, "quantiles": list(pipeline.quantiles)},
            hyperparameters={"ensemble": spec.ensemble, "of": list(spec.of)},
            training_dataset_id=members[0].training_dataset_id,
            model_size_bytes=stored.size_bytes,
            model_file_path=str(stored.path),
            status="trained",
            quarter_start=quarter.start.date(),
            metadata_={
                "sha256": stored.sha256,
                "fingerprint": mark,
                "datasets": (members[0].metadata_ or {}).get("datasets", []),
                **{key: definition[key] for key in ("members", "weights", "errors")},
                **({"calibration": calibration.summary} if calibration is not None else {}),
            },
        )
        session.add(model)
        session.flush()
        record_artifact(session, run.run_id, f"{spec.name} {quarter.label}", "model", stored)
        shares = {f"weight.{name}": share for name, share in definition["weights"].items()}
        log_parameters(session, run.run_id, {"ensemble": spec.ensemble, **shares}, category="model")
        register_version(session, pipeline, spec.name, model.model_id)
        run.complete(session)

    in_transaction(engine, record)
