"""The log file that all processes of a host share, and stderr where nobody else shows a record."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler

FILE_NAME = "ts-forecast.log"
_MOST_BYTES = 10_000_000
_OLDER_FILES = 9
_SILENT_SECONDS = 60.0


class SharedFileHandler(ConcurrentRotatingFileHandler):
    """Appends whole lines under a lock of the kernel; rotates once, whichever process is the one.

    A file that cannot be written (no right, a full disk) costs a line on stderr a minute, never the
    caller's work. Its folder is made for the first record.
    """

    def __init__(
        self, folder: Path, *, most_bytes: int = _MOST_BYTES, older_files: int = _OLDER_FILES
    ) -> None:
        super().__init__(
            str(folder / FILE_NAME),
            maxBytes=most_bytes,
            backupCount=older_files,
            encoding="utf-8",
            unicode_error_policy="replace",
        )
        self._folder = folder
        self._complained = -_SILENT_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record's line."""
        if self.stream_lock is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError:
                self.handleError(record)
                return
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 — logging's name
        """Say so, once a minute."""
        now = time.monotonic()
        if now - self._complained >= _SILENT_SECONDS and sys.stderr is not None:
            self._complained = now
            error = sys.exc_info()[1]
            print(f"{self.baseFilename} cannot be written: {error}", file=sys.stderr)


class LastResort(logging.StreamHandler):  # type: ignore[type-arg]
    """Warnings on stderr, of loggers that have no handler besides ours.

    Python does so as long as there is no handler at all; with ours there, this takes its place. What
    Dagster or a library shows in its own way is not shown twice.
    """

    def __init__(self, ours: list[logging.Handler]) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.WARNING)
        self._ours = ours

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless another handler got it."""
        if not self._is_heard(record.name):
            self.stream = sys.stderr
            super().emit(record)

    def _is_heard(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler not in self._ours for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False
