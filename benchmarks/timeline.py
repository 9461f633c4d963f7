"""Where the time of a backfill went, read from Dagster's event log.

Every moment from the launch to the last row belongs to one heading, the first that applies: a step
that trains counts before one that waits. Nothing is measured here that the log does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

# In order: a moment belongs to the first of them that covers it.
HEADINGS = (
    "training",
    "predicting and publishing",
    "scoring",
    "datasets and profiles",
    "a step waits for its process",
    "run worker: start, plan, end",
    "run queued or launched",
    "between runs (the daemon)",
)


@dataclass(frozen=True)
class Span:
    """A piece of time, in Unix seconds."""

    heading: str
    begin: float
    end: float
    run: str
    step: str


def spans_of(instance: dg.DagsterInstance) -> list[Span]:
    """Spans of all runs of an instance: queueing, the workers, their steps' waiting and work."""
    spans = []
    for record in instance.get_run_records():
        run = record.dagster_run.run_id
        created = record.create_timestamp.timestamp()
        start, end = record.start_time or created, record.end_time or created
        spans.append(Span(HEADINGS[6], created, start, run, ""))
        spans.append(Span(HEADINGS[5], start, end, run, ""))
        launched: dict[str, float] = {}
        started: dict[str, float] = {}
        for entry in instance.all_logs(run):
            if not entry.is_dagster_event or entry.step_key is None:
                continue
            kind, key = entry.get_dagster_event().event_type_value, entry.step_key
            if kind == "STEP_WORKER_STARTING":
                launched[key] = entry.timestamp
            elif kind == "STEP_START":
                started[key] = entry.timestamp
                since = launched.get(key, entry.timestamp)
                spans.append(Span(HEADINGS[4], since, entry.timestamp, run, key))
            elif kind in ("STEP_SUCCESS", "STEP_FAILURE") and key in started:
                spans.append(Span(_heading(key), started[key], entry.timestamp, run, key))
    return spans


def _heading(step: str) -> str:
    if "__trained_models__" in step:
        return HEADINGS[0]
    if step.endswith("__predictions"):
        return HEADINGS[1]
    return HEADINGS[2] if step.endswith("__metric_summaries") else HEADINGS[3]


def last_row(spans: Iterable[Span]) -> float:
    """When the last step ended."""
    return max(span.end for span in spans if span.step)


def shares(spans: list[Span], launched: float) -> dict[str, float]:
    """Seconds of each heading from the launch to the last row; they add up to all of it."""
    end = last_row(spans)
    edges = {launched, end, *(s.begin for s in spans), *(s.end for s in spans)}
    moments = sorted(moment for moment in edges if launched <= moment <= end)
    seconds = dict.fromkeys(HEADINGS, 0.0)
    rank = {heading: place for place, heading in enumerate(HEADINGS)}
    for begin, stop in zip(moments, moments[1:], strict=False):
        covering = [rank[s.heading] for s in spans if s.begin <= begin and stop <= s.end]
        seconds[HEADINGS[min(covering, default=len(HEADINGS) - 1)]] += stop - begin
    return seconds
