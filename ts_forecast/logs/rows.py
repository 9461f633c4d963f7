"""Rows of ``system_logs`` from the fields of records."""

from __future__ import annotations

from sqlalchemy import Engine, bindparam, insert, select, text
from sqlalchemy.exc import DataError, IntegrityError

from ts_forecast.db.engine import transaction
from ts_forecast.logs.records import Fields
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.log import SystemLog

# A run that is not committed yet, or gone, must not cost the record.
_RUN = select(Run.run_id).where(Run.run_id == bindparam("run")).scalar_subquery()
_INSERT = insert(SystemLog).values(
    log_level=bindparam("level"),
    log_message=bindparam("message"),
    log_source=bindparam("logger"),
    run_id=_RUN,
    user_id=bindparam("user"),
    stack_trace=bindparam("stack"),
    exception_type=bindparam("exception"),
    extra_data=bindparam("extra", type_=SystemLog.extra_data.type),
    created_at=bindparam("time"),
)
# What waits for a lock, or for a server that hangs, is tried again later.
_BOUNDS = text(
    "SELECT set_config('statement_timeout', '10s', true), set_config('lock_timeout', '2s', true)"
)


def write_rows(engine: Engine, batch: list[Fields], user: str) -> int:
    """Store records, in one transaction; commits. Returns how many PostgreSQL refused for good.

    Args:
        user: the application user.

    Raises:
        DBAPIError: none could be stored, for now.
    """
    rows = [_row(fields, user) for fields in batch]
    try:
        _store(engine, rows)
    except (DataError, IntegrityError):
        # One of them is at fault: it must not take the others with it.
        return sum(not _is_stored(engine, row) for row in rows)
    return 0


def _store(engine: Engine, rows: list[dict[str, object]]) -> None:
    with transaction(engine) as session:
        session.execute(_BOUNDS)
        session.connection().execute(_INSERT, rows)


def _is_stored(engine: Engine, row: dict[str, object]) -> bool:
    try:
        _store(engine, [row])
    except (DataError, IntegrityError):
        return False
    return True


def _row(fields: Fields, user: str) -> dict[str, object]:
    run = fields.context.get("run_id")
    return {
        "level": fields.level,
        "message": fields.message,
        "logger": fields.logger,
        "run": run if isinstance(run, int) else None,
        "user": user,
        "stack": fields.stack_trace,
        "exception": fields.exception_type,
        "extra": {**fields.context, "pid": fields.pid},
        "time": fields.time,
    }
