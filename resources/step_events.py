"""What an executor reads of a step from Dagster: its key, and the outcomes that it has reported.

For step handlers, which start steps elsewhere and must tell a step that ended from one that was lost.
"""

from __future__ import annotations

from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.executor.step_delegating import StepHandlerContext

_OUTCOMES = {
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.STEP_SKIPPED,
}


def step_key_of(context: StepHandlerContext) -> str:
    """The step that a handler is to start, look at or end."""
    keys = context.execute_step_args.step_keys_to_execute
    assert keys is not None and len(keys) == 1, "Dagster launches one step at a time"
    return keys[0]


def outcomes_of(context: StepHandlerContext, step_key: str) -> list[EventLogEntry]:
    """How the attempts at a step have ended so far, as they reported it themselves."""
    entries = context.instance.event_log_storage.get_logs_for_run(
        context.execute_step_args.run_id, of_type=_OUTCOMES
    )
    return [entry for entry in entries if entry.step_key == step_key]
