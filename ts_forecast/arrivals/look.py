"""One look at a pipeline's source: what arrived, what became of it, what is to be done now.

Promises: a look that is repeated, or cut off and repeated, ends in the same; a lost memory costs a
reading of the source and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.arrivals.contents import Contents, Parts, read_contents
from ts_forecast.arrivals.plan import Request, make_plan
from ts_forecast.arrivals.uploads import judge, record, record_touch
from ts_forecast.arrivals.watching import Mark, Seen, is_settled, mark_of, present_files
from ts_forecast.datasets.set_aside import Standing, standings
from ts_forecast.datasets.sources import RawFile, definition_hash
from ts_forecast.datasets.store import file_sha256
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings

_VERSION = 1


@dataclass(frozen=True)
class Memory:
    """What a look leaves to the next one; nothing in it is lost for good if it is.

    Attributes:
        marks: of the files, as they lay there.
        state: of the files and how they are read, to which ``contents`` belongs.
    """

    marks: dict[Path, Mark] = field(default_factory=dict)
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
            marks={Path(path): tuple(mark) for path, mark in content["marks"].items()},
            state=content["state"],
            contents=Contents(parts, tuple(content["problems"])),
        )

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(
            {
                "version": _VERSION,
                "marks": {str(path): mark for path, mark in self.marks.items()},
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


def look(
    engine: Engine, settings: Settings, pipeline: Pipeline, memory: Memory, *, now: float
) -> Look:
    """Look at the source, and say what it calls for; files that arrived are put on record.

    Args:
        now: seconds since the epoch, to tell a file's age.
    """
    seen = present_files(pipeline, settings)
    known = _standings(engine, pipeline)
    arrived, marks = [], {file.path: file.mark for file in seen}
    for file in seen:
        standing = known.get(file.path)
        if standing is not None and standing.knows(file.mark):
            continue
        if not is_settled(file, memory.marks, now=now, settle_seconds=pipeline.settle_seconds):
            continue
        verdict = _receive(engine, settings, pipeline, file, standing)
        if verdict is None:
            # It was written while it was read.
            marks.pop(file.path)
        else:
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
        waiting.append(f"no file matches {', '.join(pipeline.source.patterns)} yet")
    is_usable = is_known and bool(contents.parts)
    plan = in_transaction(
        engine,
        lambda session: make_plan(session, pipeline, contents.parts, held, is_known=is_usable),
    )
    return Look(
        memory=Memory(marks, state, contents),
        requests=plan.requests,
        arrived=tuple(arrived),
        waiting=(*waiting, *contents.problems, *plan.waiting),
    )


def _standings(engine: Engine, pipeline: Pipeline) -> dict[Path, Standing]:
    def read(session: Session) -> dict[Path, Standing]:
        return standings(session, pipeline)

    return in_transaction(engine, read, read_only=True)


def _receive(
    engine: Engine, settings: Settings, pipeline: Pipeline, file: Seen, before: Standing | None
) -> str | None:
    """Judge a file that stands still; what became of it, None if it did not stand still after all."""
    try:
        sha256 = file_sha256(file.path)
        if before is not None and before.newest == sha256 and sha256 in before.contents:
            if mark_of(file.path) != file.mark:
                return None
            record_touch(engine, pipeline, file)
            return "written again, with the same content"
        verdict: tuple[Quarter, ...] | TsForecastError = judge(settings, pipeline, file)
    except FileNotFoundError:
        return None
    except TsForecastError as error:
        verdict = error
    if mark_of(file.path) != file.mark:
        return None
    record(engine, settings, pipeline, file, sha256, verdict)
    return f"rejected: {verdict}" if isinstance(verdict, TsForecastError) else "accepted"


def _sort(
    seen: list[Seen], known: dict[Path, Standing]
) -> tuple[list[RawFile], set[Quarter], list[str]]:
    """The files that may be read, the quarters of those that may not, and why they may not."""
    good, held, waiting = [], set(), []
    for file in seen:
        standing = known.get(file.path)
        is_judged = standing is not None and standing.knows(file.mark)
        if standing is not None and is_judged and not standing.reason:
            good.append(
                RawFile(file.path, standing.newest, file.mark[0], file.mark[1], file.is_static)
            )
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
