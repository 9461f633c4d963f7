"""How a record looks as a line: JSON for machines, text for people."""

from __future__ import annotations

import json
import logging

from ts_forecast.logs.masking import Masker
from ts_forecast.logs.records import fields_of

# A context may not stand in for what the record says of itself.
_OWN = ("time", "level", "logger", "message", "pid", "exception_type", "stack_trace")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, pid, context, exception."""

    def __init__(self, mask: Masker) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = fields_of(record, self._mask)
        line = {
            "time": fields.time.isoformat(timespec="microseconds"),
            "level": fields.level,
            "logger": fields.logger,
            "message": fields.message,
            "pid": fields.pid,
        }
        for key, value in fields.context.items():
            line[f"{key}_" if key in _OWN else key] = value
        if fields.exception_type is not None:
            line["exception_type"] = fields.exception_type
        if fields.stack_trace is not None:
            line["stack_trace"] = fields.stack_trace
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


class TextFormatter(logging.Formatter):
    """Time (UTC), level, logger, message and context on a line; the exception below it."""

    def __init__(self, mask: Masker) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """The lines, without the last one's end."""
        fields = fields_of(record, self._mask)
        time = fields.time.strftime("%Y-%m-%d %H:%M:%S")
        context = "".join(f" {key}={value}" for key, value in fields.context.items())
        line = f"{time} {fields.level:<8} {fields.logger}: {fields.message}{context}"
        return f"{line}\n{fields.stack_trace}" if fields.stack_trace else line
