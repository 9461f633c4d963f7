"""Stored search spaces: the rows of ``hyperparameter_search_spaces``, by name.

A pipeline file names one; a file of spaces brings them in and takes them out. What a space may hold is
``ts_forecast.search_space``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ts_forecast.errors import PipelineError
from ts_forecast.model_catalogue import ModelKind, catalogue
from ts_forecast.pipeline_source import Strict
from ts_forecast.search_space import Space, parse_space
from ts_forecast.tables.training import SearchSpace
from ts_forecast.tracking.fingerprint import canonical_json

_KEYS = ("values", "low", "high", "step", "log", "type", "times")
_IMPORT = "ts-forecast search-spaces import FILE.yaml"


class SpaceEntry(Strict):
    """One space of a file: ``<name>: {model: NHITS, space: {...}}``."""

    model: str = Field(description="The class whose parameters it searches, e.g. NHITS.")
    space: Space
    description: Annotated[str, Field(max_length=10_000)] = ""
    tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("space", mode="before")
    @classmethod
    def _is_a_space(cls, value: Any) -> Space:
        return parse_space(value)

    @field_validator("model")
    @classmethod
    def _is_searched(cls, value: str) -> str:
        kinds = catalogue()
        plain = kinds[value].searches if value in kinds else None
        name = plain or value
        if name not in kinds or f"Auto{name}" not in kinds:
            allowed = sorted(kind.searches for kind in kinds.values() if kind.searches)
            raise ValueError(f"it cannot be searched; allowed: {', '.join(allowed)}")
        return name

    @model_validator(mode="after")
    def _takes_its_parameters(self) -> SpaceEntry:
        if refusals := self.space.refusals(catalogue()[self.model]):
            raise ValueError(f"space: {'; '.join(refusals)}")
        return self


Change = Literal["added", "changed", "unchanged"]


@dataclass(frozen=True)
class Imported:
    """What became of a space of a file."""

    name: str
    change: Change


def parse_spaces(content: dict[str, Any], *, origin: str) -> dict[str, SpaceEntry]:
    """The spaces of a file's content, by name; ``origin`` names it in errors.

    Raises:
        PipelineError: names the file and, for each wrong space, what is wrong and what is allowed.
    """
    entries, problems = {}, []
    for name, entry in content.items():
        if not isinstance(name, str) or not 0 < len(name) <= 255:
            problems.append(f"found the name {name!r}, 1 to 255 characters are wanted")
            continue
        try:
            entries[name] = SpaceEntry.model_validate(entry)
        except ValidationError as error:
            problems += [f"{name}{_described(item)}" for item in error.errors()]
    if problems or not entries:
        raise PipelineError(
            f"{origin}: {'; '.join(problems) or 'it holds no space'}.",
            remedy="Search spaces are described in docs/pipeline-file.md.",
        )
    return entries


def _described(item: Any) -> str:
    where = "".join(f".{part}" for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key, allowed: {', '.join(sorted(SpaceEntry.model_fields))}"
    if item["type"] == "missing":
        return f"{where}: this key is required"
    found = "" if isinstance(item["input"], dict) else f"found {item['input']!r}, "
    return f"{where}: {found}{item['msg'].removeprefix('Value error, ')}"


def import_spaces(
    session: Session, entries: dict[str, SpaceEntry], *, created_by: str | None = None
) -> list[Imported]:
    """Store spaces by name, names ascending.

    An identical one changes nothing; a changed one, or one that was deactivated, becomes as the file
    has it. Models that name it are fitted anew where its definition or model changed.
    """
    done = []
    for name, entry in sorted(entries.items()):
        wanted = {
            "space_description": entry.description or None,
            "model_type": entry.model,
            "framework": catalogue()[entry.model].framework,
            "search_space_definition": entry.space.canonical(),
            "tags": entry.tags,
            "is_active": True,
        }
        found = session.scalar(
            select(SearchSpace).where(SearchSpace.space_name == name).with_for_update()
        )
        # As text: to Python, 1 and true are equal, and would be one value.
        if found is not None and canonical_json(wanted) == canonical_json(
            {key: getattr(found, key) for key in wanted}
        ):
            done.append(Imported(name, "unchanged"))
            continue
        # Two imports at once: the second one's definition stands.
        session.execute(
            insert(SearchSpace)
            .values(space_name=name, created_by=created_by, **wanted)
            .on_conflict_do_update(index_elements=["space_name"], set_=wanted)
        )
        done.append(Imported(name, "added" if found is None else "changed"))
    return done


def deactivate_space(session: Session, name: str) -> None:
    """Keep a space from being named by pipelines; its row stays, and importing it revives it.

    Raises:
        PipelineError: there is no active space of that name.
    """
    changed = session.execute(
        update(SearchSpace)
        .where(SearchSpace.space_name == name, SearchSpace.is_active.is_(True))
        .values(is_active=False)
        .returning(SearchSpace.search_space_id)
    ).one_or_none()
    if changed is None:
        raise _unknown(session, name)


def list_spaces(session: Session, *, inactive: bool = False) -> list[SearchSpace]:
    """The active spaces by name; the deactivated ones too where asked for."""
    query = select(SearchSpace).order_by(SearchSpace.space_name)
    return list(
        session.scalars(query if inactive else query.where(SearchSpace.is_active.is_(True)))
    )


def export_spaces(session: Session, names: list[str] | None = None) -> dict[str, Any]:
    """Active spaces as a file's content, which ``parse_spaces`` reads back as they are.

    Args:
        names: default: all.

    Raises:
        PipelineError: there is no active space of a name.
    """
    rows = {row.space_name: row for row in list_spaces(session)}
    content = {}
    for name in sorted(rows) if names is None else names:
        if name not in rows:
            raise _unknown(session, name)
        row = rows[name]
        entry = {
            "description": row.space_description,
            "model": row.model_type,
            "tags": row.tags,
            "space": _short(row.search_space_definition),
        }
        content[name] = {key: value for key, value in entry.items() if value}
    return content


def stored_space(session: Session, name: str, kind: ModelKind, *, where: str = "") -> Space:
    """The active space of a name, for a model.

    Args:
        where: names whoever asks, in errors.

    Raises:
        PipelineError: there is none, it is of another model, or its row holds what is no space.
    """
    row = session.scalar(
        select(SearchSpace).where(SearchSpace.space_name == name, SearchSpace.is_active.is_(True))
    )
    where = f"{where}: " if where else ""
    if row is None:
        raise _unknown(session, name, where)
    if row.model_type != kind.searches:
        raise PipelineError(
            f"{where}The search space {name!r} is of {row.model_type}, {kind.name} searches "
            f"{kind.searches}.",
            remedy=f"Name a space of {kind.searches}: `ts-forecast search-spaces list`.",
        )
    # A row may have been written by hand.
    try:
        space = parse_space(row.search_space_definition)
        problems = "; ".join(space.refusals(kind))
    except ValueError as error:
        problems = str(error)
    if problems:
        raise PipelineError(
            f"{where}The search space {name!r} is wrong: {problems}.",
            remedy=f"Correct it and bring it in again: {_IMPORT}.",
        )
    return space


def _unknown(session: Session, name: str, where: str = "") -> PipelineError:
    known = ", ".join(row.space_name for row in list_spaces(session))
    return PipelineError(
        f"{where}No active search space is called {name!r}; there are: {known or 'none'}.",
        remedy=f"Bring it in: {_IMPORT}.",
    )


def _short(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition as people write it: by name, without the defaults that ``canonical`` spells out."""
    return {
        name: {key: domain[key] for key in _KEYS if _is_said(domain.get(key))}
        if isinstance(domain, dict)
        else domain
        for name, domain in sorted(definition.items())
    }


def _is_said(value: Any) -> bool:
    # By identity: 0 equals False, and is a bound.
    return value is not None and value is not False
