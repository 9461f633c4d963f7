"""A log record as plain fields: masked, storable, of bounded size. No record is lost on the way.

The same fields make a line of JSON, a line of text and a row of ``system_logs``. That is why neither
structlog nor python-json-logger is used: they render lines, and neither cleans what PostgreSQL refuses.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ts_forecast.logs.context import current
from ts_forecast.logs.masking import Masker

_LONGEST_MESSAGE = 32_000
_LONGEST_STACK = 64_000
_LONGEST_NAME = 255
_LONGEST_EXTRA = 2_000
_MOST_ITEMS = 50
_DEEPEST = 4
_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
_STANDARD |= {"dagster_event", "dagster_event_batch_metadata"}
# Dagster rewrites the records of loggers that it manages, and keeps here what was said, where and when.
_REWRITTEN = "dagster_meta"
_LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))


@dataclass(frozen=True)
class Fields:
    """What is kept of a record.

    Attributes:
        level: one of Python's five, whatever a library calls its own.
        context: what was bound or given as ``extra``; only what JSON and PostgreSQL can hold.
    """

    time: datetime
    level: str
    logger: str
    message: str
    pid: int
    context: dict[str, Any]
    exception_type: str | None
    stack_trace: str | None


def fields_of(record: logging.LogRecord, mask: Masker) -> Fields:
    """The fields of a record; never raises for what was logged."""
    exception_type, stack = _exception(record)
    rewritten = record.__dict__.get(_REWRITTEN)
    # What libraries note on every record for themselves (ray does) starts with an underscore.
    extra = {
        key: value
        for key, value in record.__dict__.items()
        if key not in _STANDARD and not key.startswith("_")
    }
    extra.pop(_REWRITTEN, None)
    if isinstance(rewritten, Mapping):
        told = {"dagster_run": rewritten.get("run_id"), "step": rewritten.get("step_key")}
        extra = {key: value for key, value in told.items() if value is not None} | extra
    context = plain({**current(), **extra}, mask)
    return Fields(
        time=datetime.fromtimestamp(record.created, UTC),
        level=next((name for least, name in _LEVELS if record.levelno >= least), "DEBUG"),
        logger=clean(record.name, mask, _LONGEST_NAME),
        message=clean(_message(record), mask, _LONGEST_MESSAGE),
        pid=record.process or 0,
        context=context if isinstance(context, dict) else {},
        exception_type=exception_type and clean(exception_type, mask, _LONGEST_NAME),
        stack_trace=stack and clean(stack, mask, _LONGEST_STACK),
    )


def clean(text: str, mask: Masker, longest: int) -> str:
    """A text that UTF-8 and PostgreSQL can hold: NUL and lone surrogates are written as escapes."""
    if len(text) > longest:
        # Both ends: what happened, and where it came from.
        head = longest * 2 // 3
        tail = longest - head - 40
        text = f"{text[:head]} … ({len(text)} characters) … {text[len(text) - tail :]}"[:longest]
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return mask(text.replace("\x00", "\\x00") if "\x00" in text else text)


def plain(value: object, mask: Masker, depth: int = 0) -> Any:
    """A value that JSON can hold; what it cannot, as its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and type(value) is int and abs(value) < 2**63:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        items = list(value.items())[:_MOST_ITEMS]
        return {_text(key, mask): plain(item, mask, depth + 1) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < _DEEPEST:
        return [plain(item, mask, depth + 1) for item in list(value)[:_MOST_ITEMS]]
    return _text(value, mask)


def _text(value: object, mask: Masker) -> str:
    return clean(_said(value), mask, _LONGEST_EXTRA)


def _said(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 — somebody's __str__; the record matters more
        return f"<{type(value).__name__}: {type(error).__name__} in its __str__>"


def _message(record: logging.LogRecord) -> str:
    rewritten = record.__dict__.get(_REWRITTEN)
    if isinstance(rewritten, Mapping) and "orig_message" in rewritten:
        return _said(rewritten["orig_message"])
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 — arguments that do not fit the format
        return f"{_said(record.msg)} (its arguments do not fit: {type(error).__name__})"


def _exception(record: logging.LogRecord) -> tuple[str | None, str | None]:
    kind, stack = None, record.stack_info
    if record.exc_info and record.exc_info[0] is not None:
        error_type = record.exc_info[0]
        home = "" if error_type.__module__ == "builtins" else f"{error_type.__module__}."
        kind = f"{home}{error_type.__qualname__}"
        try:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        except Exception as error:  # noqa: BLE001 — an exception whose text cannot be had
            text = f"{kind}: {type(error).__name__} in its __str__"
        stack = f"{text}\n{stack}" if stack else text
    return kind, stack
