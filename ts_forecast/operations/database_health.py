"""The daily look at the server: connections, cache, transactions, replication, archiving, wraparound.

``server_state`` asks, ``judge_server`` says what is wrong and how to mend it, so that every threshold can be
tried without a sick server. The schema's side is ``schema_health``.
"""

from __future__ import annotations

from typing import Literal

from ts_forecast.operations.findings import Finding, judged
from ts_forecast.operations.server_state import ServerState

_CONNECTIONS_WARN, _CONNECTIONS_ERROR = 0.8, 0.95
# Below so many pages read (1 GB) a ratio says only that the server is young.
_CACHE_PAGES, _CACHE_RATIO = 131_072, 0.9
_TRANSACTION_SECONDS, _IDLE_IN_TRANSACTION_SECONDS = 3600, 600
_LAG_BYTES = 2**30
_WRAPAROUND_LIMIT = 2**31
_WRAPAROUND_WARN, _WRAPAROUND_ERROR = 0.35, 0.7


def judge_server(state: ServerState) -> list[Finding]:
    """A finding for each subject, fine ones included."""
    return [
        _connections(state),
        _cache(state),
        _transactions(state),
        _replication(state),
        _archiving(state),
        _wraparound(state),
        judged(
            "checksums",
            not state.checksum_failures,
            f"{state.checksum_failures} failures",
            "A disk or its controller returns wrong pages: restore from a backup, on another disk.",
        ),
    ]


def _graded(
    subject: str,
    value: float,
    limits: tuple[float, float],
    detail: str,
    remedy: str,
) -> Finding:
    status: Literal["ok", "warning", "error"] = "ok"
    if value >= limits[0]:
        status = "error" if value >= limits[1] else "warning"
    return Finding(subject, status, detail, "" if status == "ok" else remedy)


def _connections(state: ServerState) -> Finding:
    return _graded(
        "connections",
        state.connections / max(state.connection_limit, 1),
        (_CONNECTIONS_WARN, _CONNECTIONS_ERROR),
        f"{state.connections} of {state.connection_limit}; here {state.active} active, "
        f"{state.idle} idle, {state.idle_in_transaction} idle in a transaction",
        "Run `ts-forecast db terminate --idle-for 1h`, lower DATABASE_POOL_SIZE, or raise "
        "max_connections.",
    )


def _cache(state: ServerState) -> Finding:
    if state.hit_ratio is None or state.pages_read < _CACHE_PAGES:
        return Finding("cache", "ok", "too little was read to judge it")
    detail = f"{state.hit_ratio:.1%} of pages were in shared memory"
    remedy = "Raise shared_buffers (a quarter of the memory), or look at `ts-forecast db slow`."
    return judged("cache", state.hit_ratio >= _CACHE_RATIO, detail, remedy)


def _transactions(state: ServerState) -> Finding:
    detail = f"longest {state.longest_transaction:.0f} s, {state.deadlocks} deadlocks so far"
    if state.oldest_prepared >= _IDLE_IN_TRANSACTION_SECONDS:
        return Finding(
            "transactions",
            "error",
            f"a transaction was prepared {state.oldest_prepared:.0f} s ago and never ended",
            "See pg_prepared_xacts, and COMMIT PREPARED or ROLLBACK PREPARED it: it keeps vacuum "
            "from clearing rows.",
        )
    if state.longest_idle_transaction >= _IDLE_IN_TRANSACTION_SECONDS:
        return Finding(
            "transactions",
            "warning",
            f"one has been idle for {state.longest_idle_transaction:.0f} s",
            "Find it with `ts-forecast db activity` and end it with `ts-forecast db terminate PID`.",
        )
    remedy = "See `ts-forecast db activity`: while it runs, vacuum clears no row that it may see."
    return judged("transactions", state.longest_transaction < _TRANSACTION_SECONDS, detail, remedy)


def _replication(state: ServerState) -> Finding:
    if state.lost_slots or state.slot_lag_bytes >= _LAG_BYTES:
        gone = f"{state.lost_slots} have lost their WAL" if state.lost_slots else "nobody reads it"
        return Finding(
            "replication",
            "error" if state.lost_slots else "warning",
            f"{state.inactive_slots} inactive slots keep {state.slot_lag_bytes / 2**20:.0f} MiB of "
            f"WAL; {gone}",
            "Start what reads them, or SELECT pg_drop_replication_slot(slot_name).",
        )
    role = "a standby" if state.is_standby else f"{state.standbys} standbys"
    detail = f"{role}, {state.standby_lag_bytes / 2**20:.0f} MiB behind"
    if not state.is_standby and not state.standbys:
        detail = "none"
    remedy = "See pg_stat_replication: the standby or the way to it is too slow."
    return judged("replication", state.standby_lag_bytes < _LAG_BYTES, detail, remedy)


def _archiving(state: ServerState) -> Finding:
    if state.archive_mode == "off":
        return Finding("archiving", "ok", "off: a backup restores to its own moment only")
    remedy = "Read the server's log and mend archive_command; WAL piles up until it works."
    if state.archive_is_failing:
        return Finding("archiving", "error", "the last attempt failed", remedy)
    return Finding("archiving", "ok", f"archive_mode = {state.archive_mode}")


def _wraparound(state: ServerState) -> Finding:
    if not state.autovacuum:
        return Finding(
            "vacuum", "error", "autovacuum is off", "Set autovacuum = on and reload the server."
        )
    share = state.wraparound_age / _WRAPAROUND_LIMIT
    return _graded(
        "vacuum",
        share,
        (_WRAPAROUND_WARN, _WRAPAROUND_ERROR),
        f"autovacuum is on; the oldest transaction number has used {share:.0%} of its life",
        "End long transactions and run `ts-forecast db maintain --all`: at 100 % the server refuses "
        "writes.",
    )
