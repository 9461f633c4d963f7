"""What the records of a stretch of work are about, bound once instead of said in each message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_BOUND: ContextVar[Mapping[str, object]] = ContextVar(
    "ts_forecast.logs", default=MappingProxyType({})
)


@contextmanager
def bound(**values: object) -> Iterator[None]:
    """Add fields to all records of the block, in this thread or task.

    ``run_id`` is a column of ``system_logs``; all others go to ``extra_data``.

    >>> with bound(pipeline="shop"), bound(quarter="2025-Q1"):
    ...     dict(current())
    {'pipeline': 'shop', 'quarter': '2025-Q1'}
    >>> dict(current())
    {}
    """
    token = _BOUND.set({**_BOUND.get(), **values})
    try:
        yield
    finally:
        _BOUND.reset(token)


def current() -> Mapping[str, object]:
    """The fields that are bound here."""
    return _BOUND.get()
