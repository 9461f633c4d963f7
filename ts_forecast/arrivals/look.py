"""One look at a pipeline's source: what arrived, what became of it, what is to be done now.

Promises: a look that is repeated, or cut off and repeated, ends in the same; a lost memory costs a
reading of the source and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.arrivals.contents import Contents, Parts, read_contents
from ts_forecast.arrivals.plan import Request, make_plan
from ts_forecast.arrivals.uploads import judge, record, record_touch
from ts_forecast.arrivals.watching import Seen, is_settled, pinned, present_files, stands_still
from ts_forecast.datasets.set_aside import Standing, standings
from ts_forecast.datasets.sources import RawFile, definition_hash
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import StorageError, TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.places import Mark
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

_VERSION = 2


@dataclass(frozen=True)
class Memory:
    """What a look leaves to the next one; nothing in it is lost for good if it is.

    Attributes:
        marks: of the files, as they lay there.
        state: of the files and how they are read, to which ``contents`` belongs.
        aside: reasons of the files that are set aside, by path; None if nobody has looked.
    """

    marks: dict[str, Mark] = field(default_factory=dict)
    aside: dict[str, str] | None = None
    state: str = ""
    contents: Contents = Contents({}, ())

    @classmethod
    def parse(cls, text: str | None) -> Memory:
        """From ``dump``; an empty one from None or from another version's."""
        content = json.loads(text) if text else {}
        if content.get("version") != _VERSION:
            return cls()
        parts: dict[Quarter, Parts] = {Quarter.parse(k): v for k, v in content["parts"].items()}
        return cls(
            marks={path: tuple(mark) for path, mark in content["marks"].items()},
            aside=content["aside"],
            state=content["state"],
            contents=Contents(parts, tuple(content["problems"])),
        )

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(
            {
                "version": _VERSION,
                "marks": self.marks,
                "aside": self.aside,
                "state": self.state,
                "parts": {quarter.key: parts for quarter, parts in self.contents.parts.items()},
                "problems": self.contents.problems,
            }
        )


@dataclass(frozen=True)
class Look:
    """What came of a look.

    Attributes:
        arrived: one line for each file that was judged in it.
        waiting: one line for each thing that stands in the way of something.
    """

    memory: Memory
    requests: tuple[Request, ...]
    arrived: tuple[str, ...]
    waiting: tuple[str, ...]


def files_set_aside(engine: Engine, settings: Settings, pipeline: Pipeline) -> dict[str, str]:
    """Reasons of the files of the source that are set aside as they lie there now, by path.

    Raises:
        StorageError: a store or database does not answer.
    """
    return _set_aside(present_files(pipeline, settings), _standings(engine, pipeline))


def _set_aside(seen: list[Seen], known: dict[str, Standing]) -> dict[str, str]:
    found = {}
    for file in seen:
        standing = known.get(str(file.path))
        if standing is not None and standing.knows(file.mark) and standing.reason:
            found[str(file.path)] = standing.reason
    return found


def look(
    engine: Engine, settings: Settings, pipeline: Pipeline, memory: Memory, *, now: float
) -> Look:
    """Look at the source, and say what it calls for; files that arrived are put on record.

    A store that does not answer says nothing about its files: the look is broken off, and what it would
    have remembered is forgotten.

    Args:
        now: seconds since the epoch, to tell a file's age.
    """
    try:
        return _look(engine, settings, pipeline, memory, now)
    except StorageError as error:
        return Look(memory, (), (), (" ".join(str(error).split()),))


def _look(
    engine: Engine, settings: Settings, pipeline: Pipeline, memory: Memory, now: float
) -> Look:
    seen = present_files(pipeline, settings)
    known = _standings(engine, pipeline)
    arrived, marks = [], {str(file.path): file.mark for file in seen}
    for place, file in enumerate(seen):
        standing = known.get(str(file.path))
        if standing is not None and standing.knows(file.mark):
            continue
        if not is_settled(file, memory.marks, now=now, settle_seconds=pipeline.settle_seconds):
            continue
        judged = _receive(engine, settings, pipeline, file, standing)
        if judged is None:
            # It was written while it was read.
            marks.pop(str(file.path))
        else:
            seen[place], verdict = judged
            marks[str(file.path)] = seen[place].mark
            arrived.append(f"{file.path.name}: {verdict}")
    if arrived:
        known = _standings(engine, pipeline)
    good, held, waiting = _sort(seen, known)
    is_known = any(not file.is_static for file in good) and _has_static(pipeline, good)
    state, contents = "", Contents({}, ())
    if is_known:
        state = definition_hash(pipeline, good)
        contents = memory.contents
        if state != memory.state:
            paths = [file.path for file in good if not file.is_static]
            contents = read_contents(settings, pipeline, paths)
    elif not seen:
        patterns = ", ".join(pipeline.source.patterns)
        waiting.append(f"no file matches {patterns} yet" if patterns else "the query gives no row")
    is_usable = is_known and bool(contents.parts)
    plan = in_transaction(
        engine,
        lambda session: make_plan(session, pipeline, contents.parts, held, is_known=is_usable),
    )
    return Look(
        memory=Memory(marks, _set_aside(seen, known), state, contents),
        requests=plan.requests,
        arrived=tuple(arrived),
        waiting=(*waiting, *contents.problems, *plan.waiting),
    )


def _standings(engine: Engine, pipeline: Pipeline) -> dict[str, Standing]:
    def read(session: Session) -> dict[str, Standing]:
        return standings(session, pipeline)

    return in_transaction(engine, read, read_only=True)


def _receive(
    engine: Engine, settings: Settings, pipeline: Pipeline, file: Seen, before: Standing | None
) -> tuple[Seen, str] | None:
    """Judge a file that stands still; what became of it, None if it did not stand still after all."""
    try:
        file, sha256 = pinned(file)
        if before is not None and before.newest == sha256 and sha256 in before.contents:
            if not stands_still(file):
                return None
            record_touch(engine, pipeline, file)
            return file, "written again, with the same content"
        verdict: tuple[Quarter, ...] | TsForecastError = judge(settings, pipeline, file)
    except FileNotFoundError:
        return None
    except StorageError:
        raise
    except TsForecastError as error:
        verdict = error
    if not stands_still(file):
        return None
    record(engine, settings, pipeline, file, sha256, verdict)
    is_bad = isinstance(verdict, TsForecastError)
    return file, f"rejected: {verdict}" if is_bad else "accepted"


def _sort(
    seen: list[Seen], known: dict[str, Standing]
) -> tuple[list[RawFile], set[Quarter], list[str]]:
    """The files that may be read, the quarters of those that may not, and why they may not."""
    good, held, waiting = [], set(), []
    for file in seen:
        standing = known.get(str(file.path))
        is_judged = standing is not None and standing.knows(file.mark)
        if standing is not None and is_judged and not standing.reason:
            good.append(RawFile(file.path, standing.newest, file.mark, file.is_static))
            continue
        if standing is not None:
            held |= set(standing.quarters)
        if standing is not None and is_judged:
            waiting.append(f"{file.path.name} is set aside: {standing.reason}")
        else:
            waiting.append(f"{file.path.name} may still be being written")
    return good, held, waiting


def _has_static(pipeline: Pipeline, good: list[RawFile]) -> bool:
    return not pipeline.exogenous.static or any(file.is_static for file in good)
