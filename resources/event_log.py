"""Dagster's event log on PostgreSQL, set for steps that start within half a second.

Two of its numbers, through the hooks that Dagster has for them; the storage itself is
dagster-postgres's. Named in ``dagster.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import pg_url_from_config

# Dagster's own wait grows from 1 to 15 s: a slot would stand idle that long after each step.
_CLAIM_SECONDS = 0.5
# Rows are numbered before they are committed, so a later number may be visible first; looking back
# this many keeps an executor from missing the end of a step.
_TAIL_OVERLAP = 32


class PromptEventLogStorage(PostgresEventLogStorage):
    """Claims of a full pool are repeated every half second; tailing looks back a little."""

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
