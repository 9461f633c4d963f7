"""What the doctor finds, of each illness."""

from __future__ import annotations

import socket
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from ts_forecast.db import migrate
from ts_forecast.operations import deployment_checks, doctor, host_checks
from ts_forecast.operations.findings import Finding
from ts_forecast.settings import Settings


def only(findings: list[Finding], subject: str) -> Finding:
    found = [finding for finding in findings if finding.subject == subject]
    assert len(found) == 1, findings
    return found[0]


def test_check_folders__file_in_the_way__names_folder_and_remedy(settings: Settings) -> None:
    settings.model_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.model_dir.write_text("not a folder")

    findings = host_checks.check_folders(settings)

    broken = only(findings, "MODEL_DIR")
    assert broken.status == "error"
    assert str(settings.model_dir) in broken.detail
    assert "MODEL_DIR" in broken.remedy
    assert only(findings, "DATA_DIR").status == "ok"
    assert not settings.data_dir.exists()


def test_check_port__taken__says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert host_checks.check_port(port)[0].status == "warning"
    assert host_checks.check_port(port)[0].status == "ok"


def test_check_host__more_slots_than_cores__is_a_warning(settings: Settings) -> None:
    many = settings.model_copy(update={"slots": 10_000})

    assert only(host_checks.check_host(many), "cores").status == "warning"


def test_check_environment__misspelt_name__is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS_DIR", "/somewhere")

    found = [f for f in deployment_checks.check_environment(settings) if f.status != "ok"]

    assert [(f.detail.split()[0], "MODEL_DIR" in f.remedy) for f in found] == [("MODELS_DIR", True)]


def test_examine_deployment__unknown_setting__ends_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DATA_DIRR=x\n")

    findings = doctor.examine_deployment()

    assert findings[-1].subject == "settings"
    assert findings[-1].status == "error"
    assert "DATA_DIRR" in findings[-1].detail


def test_check_pipelines__one_wrong_one_without_source__both_are_named(settings: Settings) -> None:
    settings.pipelines_dir.mkdir(parents=True)
    good = "source: {files: raw/x.csv}\nfrequency: D\nhorizon: 7\nstart: 2024-01-01\n"
    (settings.pipelines_dir / "good.yaml").write_text(f"{good}models: [Naive]\n")
    (settings.pipelines_dir / "wrong.yaml").write_text(f"{good}models: [Nayve]\n")

    findings = deployment_checks.check_pipelines(settings)

    assert [(f.subject, f.status) for f in findings] == [("good", "warning"), ("wrong", "error")]
    assert "no file matches 'raw/x.csv'" in findings[0].detail
    assert "unknown model 'Nayve'" in findings[1].detail


def test_check_database__healthy__says_which(settings: Settings) -> None:
    findings = deployment_checks.check_database(settings)

    assert {f.status for f in findings} == {"ok"}
    assert [f.subject for f in findings] == ["database", "database clock", "schema"]


def test_check_database__older_schema__names_the_command(
    settings: Settings, engine: Engine
) -> None:
    migrate.downgrade(engine, "base")

    schema = only(deployment_checks.check_database(settings), "schema")

    assert schema.status == "warning"
    assert "db upgrade" in schema.remedy


def test_check_database__no_right_to_create__gives_the_grant(
    settings: Settings, database_url: str
) -> None:
    name = f"reader_{make_url(database_url).database}"
    plain = make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as admin:
        admin.execute(f'CREATE ROLE "{name}" LOGIN')
        admin.execute("CREATE SCHEMA IF NOT EXISTS dagster")
        admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        admin.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{name}"')
        try:
            url = plain.set(drivername="postgresql+psycopg", username=name)
            values = settings.model_dump() | {"database_url": url.render_as_string(False)}
            rights = only(
                deployment_checks.check_database(Settings(_env_file=None, **values)), "rights"
            )
        finally:
            admin.execute(f'DROP OWNED BY "{name}"')
            admin.execute(f'DROP ROLE "{name}"')

    assert rights.status == "error"
    assert rights.remedy.startswith("GRANT USAGE, CREATE ON SCHEMA public, dagster")


def test_check_database__unreachable__is_a_finding_not_an_end(settings: Settings) -> None:
    values = settings.model_dump() | {"database_url": "postgresql://nobody@127.0.0.1:1/none"}
    nowhere = Settings(_env_file=None, **values)

    findings = doctor._outcome("database", lambda: deployment_checks.check_database(nowhere))

    assert [(f.subject, f.status) for f in findings] == [("database", "error")]
    assert "DATABASE_URL" in findings[0].remedy


def test_outcome__check_that_raises__becomes_an_error() -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("line one\nline two")

    assert doctor._outcome("thing", broken) == [
        Finding("thing", "error", "RuntimeError: line one line two")
    ]
