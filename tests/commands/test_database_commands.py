"""``ts-forecast db`` as people and programs meet it: tables, JSON, questions and exit codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from ts_forecast.cli import app
from ts_forecast.db.calendar_partitions import SYSTEM_LOGS
from ts_forecast.db.periods import Period
from ts_forecast.errors import TsForecastError
from ts_forecast.operations import database_maintenance
from ts_forecast.settings import Settings

MONTH = Period.of(datetime.now(UTC), 1)
PAST = SYSTEM_LOGS.partition(MONTH.shift(-6))


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a deployment in this test's database."""
    assert settings.database_url is not None
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TS_FORECAST_HOME", str(settings.home))
    monkeypatch.setenv("COLUMNS", "250")


def db(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["db", *arguments], input=answer)


def as_json(*arguments: str, code: int = 0) -> Any:
    result = db(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def fill(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO system_logs (log_level, log_message, created_at) "
                "SELECT 'INFO', '[red]x', CAST(:at AS timestamptz) FROM generate_series(1, 7)"
            ),
            {"at": MONTH.shift(-6).start},
        )


def test_health__well_then_sick__exit_code_1_and_the_remedy(engine: Engine) -> None:
    healthy = db("health")
    assert healthy.exit_code == 0, healthy.output
    assert "✓ connections" in healthy.stdout

    fill(engine)

    sick = db("health")
    assert sick.exit_code == 1
    assert "7 in public.system_logs_default" in sick.stdout
    assert "→ Run `ts-forecast db partitions create`" in sick.stdout
    findings = {item["subject"]: item for item in as_json("health", code=1)}
    assert findings["default partitions"]["status"] == "warning"
    assert findings["connections"]["status"] == "ok"


QUIET = [
    (["activity", "--older-than", "5m"], "nothing runs", {"queries", "note"}),
    (["locks"], "nobody waits for a lock", {"waits", "note"}),
    (["slow", "--order", "total"], "no pg_stat_statements", {"statements", "remedy", "note"}),
    (["terminate"], "no connection has been idle for 1 h", {"idle", "terminations"}),
    (["indexes"], "public.idx_config_key", {"since", "indexes"}),
    (["report", "--no-keep"], "The database takes", {"report", "growth", "full_at", "note"}),
    (["partitions", "list"], "public.system_logs_default", {"attached", "archived", "note"}),
    (
        ["partitions", "list", "--archived"],
        "the archive is empty",
        {"attached", "archived", "note"},
    ),
    (["partitions", "archive"], "none is past its retention", {"archived", "expired"}),
]


def test_commands__quiet_database__say_so_and_exit_with_0() -> None:
    for arguments, shown, keys in QUIET:
        result = db(*arguments)

        assert result.exit_code == 0, result.output
        assert shown in result.stdout, arguments
        assert as_json(*arguments).keys() == keys


def test_tables_and_indexes__are_listed_under_their_parents_and_rebuilt(engine: Engine) -> None:
    shown = db("tables").stdout

    assert "public.system_logs " in shown
    assert "public.system_logs_default" not in shown
    assert "public.system_logs_default" in db("tables", "--partitions").stdout
    rows = {row["table"]: row for row in as_json("tables")}
    assert rows["public.system_logs"]["partitions"] == 3
    assert rows["public.system_logs"]["last_analyze"] is None
    assert "idx_runs_status was rebuilt" in db("indexes", "--reindex", "idx_runs_status").stdout
    assert as_json("indexes", "--reindex", "idx_runs_status")["freed_bytes"] == 0


def test_terminate__asked__ends_only_after_a_yes(engine: Engine) -> None:
    # The pool's connection of this test is idle; the command's own is not listed.
    with engine.connect() as connection:
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]

    no = db("terminate", "--idle-for", "0s", answer="n\n")
    dry = db("terminate", "--idle-for", "0s", "--dry-run")
    yes = db("terminate", str(pid), "--idle-for", "0s", "--yes")

    assert no.exit_code == 1 and str(pid) in no.output
    assert dry.exit_code == 0 and str(pid) in dry.output
    assert yes.exit_code == 0 and f"{pid}: ended" in yes.output
    gone = db("terminate", str(pid), "--yes")
    assert isinstance(gone.exception, TsForecastError)
    assert "db activity" in str(gone.exception)


def test_maintain__dry_run_then_real__does_what_it_said(engine: Engine) -> None:
    planned = as_json("maintain", "--all", "--dry-run")
    done = as_json("maintain", "--all")

    assert [one["step"] for one in planned] == [one["step"] for one in done]
    assert all(one["problem"] == "not done: dry run" for one in planned)
    assert all(one["problem"] == "" for one in done)
    assert {"vacuum", "analyze", "refresh"} == {one["step"]["kind"] for one in done}
    assert "public.mv_experiment_summary" in db("maintain").stdout


def test_maintain__a_table_in_use__exit_code_1(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_maintenance, "_LOCK_TIMEOUT", "200ms")
    with engine.connect() as other:
        other.execute(text("LOCK TABLE users IN SHARE UPDATE EXCLUSIVE MODE"))

        result = db("maintain", "--all")

    assert result.exit_code == 1
    assert "lock timeout" in result.stdout


def test_report__twice__compares_and_says_when_the_disk_is_full(engine: Engine) -> None:
    first = db("report", "--disk", "1TB")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE system_logs SET created_at = date_trunc('month', created_at), "
                "extra_data = extra_data || '{\"database_bytes\": 1000}' "
                "WHERE log_source = 'ts_forecast.capacity'"
            )
        )
    second = as_json("report", "--disk", "100TB")

    assert "no earlier report" in first.stdout
    assert "1.0 TB would be full never" in first.stdout
    assert second["growth"]["bytes"] == second["report"]["database_bytes"] - 1000
    if MONTH.start.day != datetime.now(UTC).day:
        assert second["full_at"] > "2030"


def test_partitions__create_archive_restore_drop__round(engine: Engine) -> None:
    fill(engine)
    planned = as_json("partitions", "create", "--dry-run")
    made = as_json("partitions", "create")
    assert [row["name"] for row in planned["missing"]] == [row["name"] for row in made["created"]]
    assert f"public.{PAST}" in [row["name"] for row in made["created"]]
    assert "all are there" in db("partitions", "create").stdout

    expired = as_json("partitions", "archive", "--dry-run")["expired"]
    assert [row["name"] for row in expired] == [f"public.{PAST}"]
    assert db("partitions", "archive", answer="n\n").exit_code == 1
    archived = as_json("partitions", "archive", "--yes")["archived"]
    assert [(row["was"], row["rows"]) for row in archived] == [(f"public.{PAST}", 7)]
    assert f"archive.{PAST}" in db("partitions", "list", "--archived").stdout

    assert f"public.{PAST} is attached again" in db("partitions", "restore", PAST).stdout
    assert db("partitions", "archive", PAST, "--yes").exit_code == 0

    refused = db("partitions", "drop")
    assert refused.exit_code == 2 and "--older-than" in refused.output
    assert as_json("partitions", "drop", "--older-than", "1", "--yes")["dropped"] == []
    no = db("partitions", "drop", PAST, answer="n\n")
    assert no.exit_code == 1 and "7 rows" in no.output
    assert "1 dropped" in db("partitions", "drop", PAST, "--yes").stdout
    assert as_json("partitions", "list", "--archived", "--dropped")["archived"][0]["dropped_at"]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM system_logs")) == 0


def test_commands__reader__each_works_or_is_refused_in_words(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        # As `dev` makes it; a reader may not.
        connection.execute(text("CREATE SCHEMA dagster"))
        connection.execute(text("CREATE ROLE visitor LOGIN IN ROLE readonly_user"))
    monkeypatch.setenv(
        "DATABASE_URL",
        engine.url.set(username="visitor").render_as_string(hide_password=False),
    )
    try:
        for arguments, _, keys in QUIET:
            assert as_json(*arguments).keys() == keys
        assert as_json("tables")
        assert {one["status"] for one in as_json("health")} == {"ok"}
        assert "GRANT pg_monitor TO visitor" in as_json("activity")["note"]
        assert "hidden from this role" in db("partitions", "list").stdout
        assert "not on record: permission denied" in db("report").stdout
        left = as_json("maintain", "--all", code=1)
        assert {one["problem"] for one in left} == {"left: only its owner may"}
        refused = db("partitions", "create").exception
        assert "permission denied" in str(refused)
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP ROLE visitor"))


def test_partitions__wrong_names__are_refused_in_one_line() -> None:
    assert db("partitions", "list", "--table", "runs").exit_code == 2
    for arguments in (("archive", "nowhere"), ("restore", "nowhere"), ("drop", "nowhere", "--yes")):
        error = db("partitions", *arguments).exception
        assert isinstance(error, TsForecastError) and "db partitions list" in str(error)
    assert db("activity", "--older-than", "soon").exit_code == 2
    assert db("report", "--disk", "big").exit_code == 2
