"""Stages of registered versions: what may follow what, and who decided it.

``none → staging → production → archived``, and beside it:

- ``staging → archived``: refused before it was ever in production
- ``production → archived``: replaced, or taken back
- ``archived → staging``: considered again; the way back into production leads through it

Nothing else is legal; every change is written into the row and, by a trigger, into the audit log. One
version a (pipeline, quarter) is in production: whoever changes that locks all versions of the quarter
first, and a unique index stands behind. Which version deserves it is ``evaluation.champion``.

Functions take the caller's session and never commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ts_forecast.errors import RegistryError
from ts_forecast.tables.registry import RegisteredModel

Stage = Literal["none", "staging", "production", "archived"]
Action = Literal["approve", "reject", "promote"]
Verdict = Literal["chosen", "approved", "promoted", "rejected", "replaced", "rolled back"]
LEGAL: Mapping[str, frozenset[str]] = {
    "none": frozenset({"staging"}),
    "staging": frozenset({"production", "archived"}),
    "production": frozenset({"archived"}),
    "archived": frozenset({"staging"}),
}
# Verdicts of people, which an automatic choice does not overrule.
_REFUSALS = {"rejected", "rolled back"}
_MAX_NAME_LENGTH = 255


@dataclass(frozen=True)
class Decision:
    """Who decided and why; both are needed.

    Raises:
        RegistryError: one of them is empty.
    """

    by: str
    why: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.why.strip() or len(self.by) > _MAX_NAME_LENGTH:
            raise RegistryError(
                "A decision about a registered version needs who decides and why.",
                remedy=f"Name a person (at most {_MAX_NAME_LENGTH} characters) and a reason.",
            )


def find_version(session: Session, name: str, version: int) -> RegisteredModel:
    """The registered version, e.g. ``("shop/NHITS", 3)``.

    Raises:
        RegistryError: there is none; says which there are.
    """
    found = session.scalar(
        select(RegisteredModel).where(
            RegisteredModel.registered_model_name == name, RegisteredModel.model_version == version
        )
    )
    if found is not None:
        return found
    known = session.scalar(
        select(func.max(RegisteredModel.model_version)).where(
            RegisteredModel.registered_model_name == name
        )
    )
    raise RegistryError(
        f"There is no registered version {name} {version}.",
        remedy="See `ts-forecast registry list`."
        if known is None
        else f"The last version of {name} is {known}.",
    )


def list_registered(
    session: Session,
    pipeline: str | None = None,
    quarter_start: date | None = None,
    stage: str | None = None,
) -> Sequence[RegisteredModel]:
    """Versions by quarter, name and number; None for all."""
    query = select(RegisteredModel)
    if pipeline is not None:
        prefix = f"{pipeline}/"
        query = query.where(
            RegisteredModel.registered_model_name.startswith(prefix, autoescape=True)
        )
    if quarter_start is not None:
        query = query.where(RegisteredModel.quarter_start == quarter_start)
    if stage is not None:
        query = query.where(RegisteredModel.current_stage == stage)
    order = (RegisteredModel.quarter_start, RegisteredModel.registered_model_name)
    return session.scalars(query.order_by(*order, RegisteredModel.model_version)).all()


def lock_quarter(
    session: Session, experiment_id: int, quarter_start: date
) -> Sequence[RegisteredModel]:
    """All versions of a pipeline's quarter, oldest first, as they are now; locked to the end.

    Two who promote at once come one after the other, and the second sees what the first did.
    """
    return session.scalars(
        select(RegisteredModel)
        .where(
            RegisteredModel.experiment_id == experiment_id,
            RegisteredModel.quarter_start == quarter_start,
        )
        .order_by(RegisteredModel.registry_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def change_stage(session: Session, version: RegisteredModel, to: Stage) -> None:
    """Move one version; its place in the quarter is the caller's care.

    Raises:
        RegistryError: not a legal transition.
    """
    if to not in LEGAL[version.current_stage]:
        allowed = ", ".join(sorted(LEGAL[version.current_stage]))
        raise RegistryError(
            f"{described(version)} is in {version.current_stage} and may not enter {to}.",
            remedy=f"From {version.current_stage} it may enter {allowed}.",
        )
    version.previous_stage = version.current_stage
    version.current_stage = to
    version.stage_transition_at = _now(session)
    # Before the next one: the index allows one in production at every moment.
    session.flush()


def promote(
    session: Session,
    version: RegisteredModel,
    decision: Decision,
    verdict: Verdict = "promoted",
    *,
    evidence: Mapping[str, Any] | None = None,
) -> RegisteredModel | None:
    """Put a version into production; the one that was there is archived.

    An archived version goes through staging. The rows are locked here.

    Args:
        evidence: what spoke for it; kept in its metadata.

    Returns:
        The version that was replaced; None if there was none.

    Raises:
        RegistryError: it is in production already, or its model is of no quarter.
    """
    others = _locked(session, version)
    if version.current_stage == "archived":
        change_stage(session, version, "staging")
    replaced = next((other for other in others if other.current_stage == "production"), None)
    if replaced is not None and replaced is not version:
        change_stage(session, replaced, "archived")
        _note(session, replaced, "replaced", decision)
    if version.current_stage == "none":
        change_stage(session, version, "staging")
    change_stage(session, version, "production")
    version.approved_by = decision.by
    version.approval_notes = decision.why
    version.approved_at = version.deployed_at = version.stage_transition_at
    version.production_metrics = {}
    _note(session, version, verdict, decision, evidence)
    session.flush()
    return replaced


def propose(session: Session, version: RegisteredModel, evidence: Mapping[str, Any]) -> None:
    """Make a version of staging the quarter's candidate, the only one.

    Raises:
        RegistryError: it is in production already.
    """
    for other in _locked(session, version):
        if other is not version and is_candidate(other):
            _forget_candidate(other)
    if version.current_stage != "staging":
        change_stage(session, version, "staging")
    version.metadata_ = {**(version.metadata_ or {}), "candidate": dict(evidence)}
    session.flush()


def approve(session: Session, version: RegisteredModel, decision: Decision) -> None:
    """Put a candidate into production.

    Raises:
        RegistryError: it is no candidate.
    """
    _locked(session, version)
    if not is_candidate(version):
        raise RegistryError(
            f"{described(version)} is in {version.current_stage} and no candidate.",
            remedy="`ts-forecast registry promote` puts any version into production.",
        )
    evidence = (version.metadata_ or {})["candidate"]
    promote(session, version, decision, "approved", evidence=evidence)


def reject(session: Session, version: RegisteredModel, decision: Decision) -> None:
    """Archive a version of staging; no automatic choice takes it until a person promotes it.

    Raises:
        RegistryError: it is not in staging.
    """
    _locked(session, version)
    if version.current_stage != "staging":
        raise RegistryError(
            f"{described(version)} is in {version.current_stage}, not in staging.",
            remedy="`ts-forecast registry rollback` takes a version out of production.",
        )
    change_stage(session, version, "archived")
    _note(session, version, "rejected", decision)
    session.flush()


def rollback(
    session: Session, experiment_id: int, quarter_start: date, decision: Decision
) -> tuple[RegisteredModel, RegisteredModel]:
    """Take the version in production back; the one deployed before it returns.

    Returns:
        What was taken back, and what is in production now.

    Raises:
        RegistryError: nothing is in production, or nothing was before it.
    """
    versions = lock_quarter(session, experiment_id, quarter_start)
    current = next((one for one in versions if one.current_stage == "production"), None)
    before = [
        one
        for one in versions
        if one.current_stage == "archived" and one.deployed_at and not is_refused(one)
    ]
    if current is None or not before:
        reason = "nothing is in production" if current is None else "nothing was there before"
        raise RegistryError(
            f"The quarter of {quarter_start} cannot be rolled back: {reason}.",
            remedy="`ts-forecast registry promote` puts a version into production.",
        )
    former = max(before, key=lambda one: (_deployed(one), one.registry_id))
    promote(session, former, decision, "promoted")
    _note(session, current, "rolled back", decision)
    session.flush()
    return current, former


def decide(
    session: Session, action: Action, name: str, version: int, decision: Decision
) -> RegisteredModel:
    """Do what a person asks about a version, by name; the version as it is then.

    Raises:
        RegistryError: there is no such version, or the action does not fit its stage.
    """
    found = find_version(session, name, version)
    if action == "approve":
        approve(session, found, decision)
    elif action == "reject":
        reject(session, found, decision)
    else:
        promote(session, found, decision)
    return found


def is_candidate(version: RegisteredModel) -> bool:
    """Whether it waits in staging for a person to approve it."""
    return version.current_stage == "staging" and "candidate" in (version.metadata_ or {})


def is_refused(version: RegisteredModel) -> bool:
    """Whether a person took it out of the choice: by rejecting it or by rolling it back."""
    return version.current_stage == "archived" and _verdict(version) in _REFUSALS


def is_pinned(version: RegisteredModel) -> bool:
    """Whether a person put it into production past the choice: by promoting or rolling back."""
    return version.current_stage == "production" and _verdict(version) == "promoted"


def described(version: RegisteredModel) -> str:
    """For messages: name and version."""
    return f"{version.registered_model_name} {version.model_version}"


def _locked(session: Session, version: RegisteredModel) -> Sequence[RegisteredModel]:
    if version.experiment_id is None or version.quarter_start is None:
        raise RegistryError(
            f"{described(version)} is a model of no quarter; it cannot be in production.",
            remedy="Only models of a pipeline's quarters have stages.",
        )
    return lock_quarter(session, version.experiment_id, version.quarter_start)


def _note(
    session: Session,
    version: RegisteredModel,
    verdict: Verdict,
    decision: Decision,
    evidence: Mapping[str, Any] | None = None,
) -> None:
    """Keep the last verdict in the row; the audit log keeps those before it."""
    _forget_candidate(version)
    noted = {"verdict": verdict, "by": decision.by, "why": decision.why}
    metadata = {**(version.metadata_ or {}), "decision": {**noted, "at": _now(session).isoformat()}}
    if evidence is not None:
        metadata["evidence"] = dict(evidence)
    version.metadata_ = metadata


def _forget_candidate(version: RegisteredModel) -> None:
    kept = version.metadata_ or {}
    version.metadata_ = {key: value for key, value in kept.items() if key != "candidate"}


def _verdict(version: RegisteredModel) -> str | None:
    return (version.metadata_ or {}).get("decision", {}).get("verdict")


def _deployed(version: RegisteredModel) -> datetime:
    assert version.deployed_at is not None
    return version.deployed_at


def _now(session: Session) -> datetime:
    # The moment, not the transaction's beginning: one that waited for a lock comes later.
    return session.execute(select(func.clock_timestamp())).scalar_one()
