"""Dagster's event log on PostgreSQL, set for steps that start within half a second.

Two of its numbers and its connection pool, through the hooks that Dagster has for them; the storage
itself is dagster-postgres's. Named in ``dagster.yaml``.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config
from sqlalchemy import Engine

# Dagster's own wait grows from 1 to 15 s: a slot would stand idle that long after each step.
_CLAIM_SECONDS = 0.5
# Rows are numbered before they are committed, so a later number may be visible first; looking back
# this many keeps an executor from missing the end of a step.
_TAIL_OVERLAP = 32


class PromptEventLogStorage(PostgresEventLogStorage):
    """Keeps its connection, asks for a full pool every half second, looks back when tailing."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        # By default every event and every look at the log opens a connection of its own, which
        # costs a tenth of a core for each run.
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=20,
            pool_recycle=3600,
            pool_pre_ping=True,
        )
        # A fork would write into its parent's connection.
        engine = weakref.ref(self._engine)
        os.register_at_fork(after_in_child=lambda: _forget_connections(engine()))

    def dispose(self) -> None:
        """Close the connection and stop watching."""
        super().dispose()
        self._engine.dispose()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Build it from ``dagster.yaml``."""
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
        )

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        """Claim a slot, or say when to ask again."""
        status = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        return status if status.is_claimed else status.with_sleep_interval(_CLAIM_SECONDS)

    def default_run_scoped_event_tailer_offset(self) -> int:
        """How many rows behind its cursor an executor looks."""
        return _TAIL_OVERLAP


def _forget_connections(engine: Engine | None) -> None:
    if engine is not None:
        engine.dispose(close=False)
