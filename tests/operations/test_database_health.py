"""The daily look: each threshold, a healthy database, a sick one, and a role that may see little."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from ts_forecast.db.calendar_partitions import AUDIT_LOGS, SYSTEM_LOGS
from ts_forecast.db.engine import create_engine
from ts_forecast.db.periods import Period
from ts_forecast.operations.database_health import judge_server
from ts_forecast.operations.findings import Finding
from ts_forecast.operations.schema_health import examine_database
from ts_forecast.operations.server_state import ServerState, read_server

WELL = ServerState(
    version="18.4",
    connections=10,
    connection_limit=97,
    active=1,
    idle=8,
    idle_in_transaction=0,
    hit_ratio=0.99,
    pages_read=10**6,
    longest_transaction=5,
    longest_idle_transaction=0,
    oldest_prepared=0,
    deadlocks=0,
    checksum_failures=0,
    is_standby=False,
    standbys=1,
    standby_lag_bytes=1000,
    inactive_slots=0,
    slot_lag_bytes=0,
    lost_slots=0,
    archive_mode="on",
    archive_is_failing=False,
    autovacuum=True,
    wraparound_age=200_000_000,
)


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings if finding.status != "ok"}


def test_judge_server__well__finds_nothing_wrong() -> None:
    findings = judge_server(WELL)

    assert wrong(findings) == {}
    assert all(not finding.remedy for finding in findings)
    assert wrong(judge_server(replace(WELL, archive_mode="off", standbys=0))) == {}
    # A young server's ratio says nothing.
    assert wrong(judge_server(replace(WELL, hit_ratio=0.2, pages_read=100))) == {}


@pytest.mark.parametrize(
    ("changes", "subject", "status", "remedy"),
    [
        ({"connections": 78}, "connections", "warning", "db terminate --idle-for"),
        ({"connections": 95}, "connections", "error", "max_connections"),
        ({"hit_ratio": 0.7}, "cache", "warning", "shared_buffers"),
        ({"longest_transaction": 7200}, "transactions", "warning", "db activity"),
        ({"longest_idle_transaction": 900}, "transactions", "warning", "db terminate PID"),
        ({"oldest_prepared": 900}, "transactions", "error", "ROLLBACK PREPARED"),
        ({"standby_lag_bytes": 2**31}, "replication", "warning", "pg_stat_replication"),
        ({"inactive_slots": 1, "slot_lag_bytes": 2**31}, "replication", "warning", "drop_repl"),
        ({"inactive_slots": 1, "lost_slots": 1}, "replication", "error", "drop_replication_slot"),
        ({"archive_is_failing": True}, "archiving", "error", "archive_command"),
        ({"autovacuum": False}, "vacuum", "error", "autovacuum = on"),
        ({"wraparound_age": 900_000_000}, "vacuum", "warning", "db maintain --all"),
        ({"wraparound_age": 1_600_000_000}, "vacuum", "error", "db maintain --all"),
        ({"checksum_failures": 1}, "checksums", "warning", "restore from a backup"),
    ],
)
def test_judge_server__one_thing_wrong__is_found_alone_with_its_remedy(
    changes: dict[str, float], subject: str, status: str, remedy: str
) -> None:
    found = wrong(judge_server(replace(WELL, **changes)))  # type: ignore[arg-type]

    assert found.keys() == {subject}
    assert found[subject].status == status
    assert remedy in found[subject].remedy


def test_read_server__sessions__are_counted_by_state(migrated: Engine) -> None:
    with migrated.connect() as left_open, migrated.connect() as connection:
        left_open.execute(text("SELECT 1"))
        state = read_server(connection)

    assert state.idle_in_transaction == 1
    assert state.connections >= 2 and state.connection_limit > state.connections
    assert 0 < state.longest_idle_transaction <= state.longest_transaction < 60
    assert state.autovacuum and not state.is_standby
    assert 0 < state.wraparound_age < 2**31


def test_examine_database__as_migrated__nothing_is_wrong(migrated: Engine) -> None:
    assert wrong(examine_database(migrated)) == {}


def test_examine_database__sick__finds_each_thing(migrated: Engine) -> None:
    month, quarter = (Period.of(datetime.now(UTC), months) for months in (1, 3))
    next_month = f"public.{SYSTEM_LOGS.partition(month.shift(1))}"
    this_quarter = f"audit.{AUDIT_LOGS.partition(quarter)}"
    with migrated.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (
            f"ALTER TABLE system_logs DETACH PARTITION {next_month}",
            f"ALTER TABLE audit.audit_logs DETACH PARTITION {this_quarter}",
            "INSERT INTO system_logs (log_level, log_message, created_at) "
            "VALUES ('INFO', 'x', '2020-01-01')",
            "INSERT INTO experiments (experiment_name, experiment_description) "
            "VALUES ('a', 'x'), ('b', 'x')",
            "ALTER TABLE experiments ADD CONSTRAINT ck_test CHECK (experiment_name <> 'a') NOT VALID",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            connection.execute(text(statement))
        with pytest.raises(Exception, match="duplicate"):
            connection.execute(
                text(
                    "CREATE UNIQUE INDEX CONCURRENTLY broken ON experiments (experiment_description)"
                )
            )

    found = wrong(examine_database(migrated))

    assert {subject: finding.status for subject, finding in found.items()} == {
        "schema": "error",
        "indexes": "warning",
        "constraints": "warning",
        "partitions": "error",
        "default partitions": "warning",
    }
    assert "public.broken" in found["indexes"].detail
    assert "ck_test on public.experiments" in found["constraints"].detail
    assert next_month in found["partitions"].detail
    assert this_quarter in found["partitions"].detail
    # The audit's rows of this quarter are in its default, too.
    assert "1 in public.system_logs_default" in found["default partitions"].detail
    assert "audit.audit_logs_default" in found["default partitions"].detail
    assert all("Run" in finding.remedy for finding in found.values())


def test_examine_database__reader__is_told_what_was_not_looked_at(quiet: Engine) -> None:
    with quiet.begin() as connection:
        connection.execute(text("CREATE ROLE watcher LOGIN IN ROLE readonly_user"))
    url = quiet.url.set(username="watcher").render_as_string(hide_password=False)
    watcher = create_engine(url)
    try:
        findings = {finding.subject: finding for finding in examine_database(watcher)}
    finally:
        watcher.dispose()
        with quiet.begin() as connection:
            connection.execute(text("DROP ROLE watcher"))

    assert wrong(list(findings.values())) == {}
    assert "GRANT pg_monitor TO watcher" in findings["rights"].detail
    assert findings["schema"].detail == (
        "not looked at: permission denied for table alembic_version"
    )
    assert "running and the next period" in findings["partitions"].detail
