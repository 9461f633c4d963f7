"""Figures of the server, as one query gives them; what they mean is ``database_health``."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class ServerState:
    """Figures of the server and of this database.

    Attributes:
        connections: of the whole server, which ``connection_limit`` bounds; those kept for superusers
            are taken off it.
        active, idle, idle_in_transaction: of this database; hidden ones count as none of them.
        longest_transaction, longest_idle_transaction: seconds; 0 if there is none.
        oldest_prepared: seconds since the oldest prepared transaction.
        slot_lag_bytes: WAL that inactive replication slots keep, and ``standby_lag_bytes`` what the
            slowest standby lacks.
        wraparound_age: of the oldest transaction (or multixact) number, of 2³¹.
    """

    version: str
    connections: int
    connection_limit: int
    active: int
    idle: int
    idle_in_transaction: int
    hit_ratio: float | None
    pages_read: int
    longest_transaction: float
    longest_idle_transaction: float
    oldest_prepared: float
    deadlocks: int
    checksum_failures: int
    is_standby: bool
    standbys: int
    standby_lag_bytes: int
    inactive_slots: int
    slot_lag_bytes: int
    lost_slots: int
    archive_mode: str
    archive_is_failing: bool
    autovacuum: bool
    wraparound_age: int


def read_server(connection: Connection) -> ServerState:
    """Ask the server; what the role may not see counts as none."""
    return ServerState(**connection.execute(text(_STATE)).one()._mapping)


_STATE = """
SELECT current_setting('server_version') AS version,
       (SELECT sum(numbackends) FROM pg_stat_database)::int AS connections,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int AS connection_limit,
       a.active, a.idle, a.idle_in_transaction,
       d.blks_hit::float8 / nullif(d.blks_hit + d.blks_read, 0) AS hit_ratio, d.blks_read AS pages_read,
       a.longest_transaction, a.longest_idle_transaction,
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - prepared)), 0)::float8
        FROM pg_prepared_xacts) AS oldest_prepared,
       d.deadlocks, coalesce(d.checksum_failures, 0) AS checksum_failures,
       pg_is_in_recovery() AS is_standby, s.standbys, s.standby_lag_bytes,
       l.inactive_slots, l.slot_lag_bytes, l.lost_slots,
       current_setting('archive_mode') AS archive_mode,
       (SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
        FROM pg_stat_archiver) AS archive_is_failing,
       current_setting('autovacuum')::bool AS autovacuum,
       (SELECT greatest(max(age(datfrozenxid)), max(mxid_age(datminmxid))) FROM pg_database)
       AS wraparound_age
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END
      AS lsn) wal
CROSS JOIN LATERAL (
    SELECT count(*) AS standbys, coalesce(max(wal.lsn - replay_lsn), 0)::bigint AS standby_lag_bytes
    FROM pg_stat_replication
) s
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT active) AS inactive_slots,
           coalesce(max(wal.lsn - restart_lsn) FILTER (WHERE NOT active), 0)::bigint AS slot_lag_bytes,
           count(*) FILTER (WHERE wal_status = 'lost') AS lost_slots
    FROM pg_replication_slots
) l
CROSS JOIN (
    SELECT count(*) FILTER (WHERE state = 'active') AS active,
           count(*) FILTER (WHERE state = 'idle') AS idle,
           count(*) FILTER (WHERE state LIKE 'idle in%') AS idle_in_transaction,
           coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
           AS longest_transaction,
           coalesce(max(extract(epoch FROM clock_timestamp() - state_change))
                    FILTER (WHERE state LIKE 'idle in%'), 0)::float8 AS longest_idle_transaction
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
) a
CROSS JOIN (SELECT * FROM pg_stat_database WHERE datname = current_database()) d
"""
