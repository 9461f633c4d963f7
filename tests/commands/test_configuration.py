"""``ts-forecast config`` as people meet it; a secret is in none of its output."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from ts_forecast import cli
from ts_forecast.configuration.secrets import new_key
from ts_forecast.errors import ConfigurationError, DatabaseError
from ts_forecast.settings import Settings

SECRET = "hunter2-très-secret"


@pytest.fixture(autouse=True)
def deployment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.database_url is not None
    monkeypatch.setenv("TS_FORECAST_HOME", str(settings.home))
    monkeypatch.setenv("LOG_DIR", str(settings.log_dir))
    monkeypatch.setenv("LOG_TO_DATABASE", "false")
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TS_FORECAST_SECRET_KEYS", new_key())
    monkeypatch.setenv("COLUMNS", "200")


def config(*arguments: str, typed: str | None = None) -> Result:
    result = CliRunner().invoke(cli.app, ["config", *arguments], input=typed)
    shown = result.output + repr(result.exception)
    assert SECRET not in shown and "hunter2" not in shown
    return result


def test_set_and_get__plain_values__are_typed(engine: Engine) -> None:
    assert config("get", "max_parallel_runs").output == "10\n"
    assert config("set", "max_parallel_runs", "12").exit_code == 0
    assert config("get", "max_parallel_runs").output == "12\n"
    assert config("set", "offset", "--type", "integer", "--", "-5").exit_code == 0
    assert config("set", "greeting", "[bold]hello", "--regex", r"\[.*").exit_code == 0
    listed = json.loads(config("list", "--json").output)
    assert {item["key"]: item["value"] for item in listed}["offset"] == -5
    table = config("list").output
    assert "[bold]hello" in table and "max_parallel_runs" in table
    assert config("unset", "greeting").exit_code == 0
    assert "no setting 'greeting'" in str(config("get", "greeting").exception)


def test_set__secret__comes_from_stdin_and_is_shown_by_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        config("set", "api_token", "--secret", typed=f"{SECRET}\n").output == "api_token is set\n"
    )
    assert config("get", "api_token").output == "********\n"
    assert "********" in config("list").output
    listed = {item["key"]: item for item in json.loads(config("list", "--json").output)}
    assert listed["api_token"]["value"] == "********" and listed["api_token"]["secret"]
    with engine.connect() as connection:
        query = text("SELECT config_value FROM system_config WHERE config_key = 'api_token'")
        before = connection.scalar(query)
    assert SECRET not in str(before)

    monkeypatch.setenv(
        "TS_FORECAST_SECRET_KEYS", f"{new_key()},{os.environ['TS_FORECAST_SECRET_KEYS']}"
    )
    assert "1 secrets" in config("rotate-keys").output
    with engine.connect() as connection:
        assert connection.scalar(query) != before
    assert config("get", "api_token").exit_code == 0


def test_set__secret_on_the_command_line__is_refused_unquoted() -> None:
    result = config("set", "api_token", SECRET, "--secret")

    assert result.exit_code == 2
    assert "not given on the command line" in result.output


def test_set__secret_in_clear__is_refused() -> None:
    config("set", "api_token", "--secret", typed=SECRET)

    result = config("set", "api_token", "x")

    assert isinstance(result.exception, ConfigurationError)
    assert "cannot be written in clear" in str(result.exception)


def test_set__secret_without_a_key__says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    config("set", "api_token", "--secret", typed=SECRET)
    monkeypatch.delenv("TS_FORECAST_SECRET_KEYS")

    for arguments in (("set", "another", "--secret"), ("get", "api_token"), ("rotate-keys",)):
        result = config(*arguments, typed=SECRET)
        assert isinstance(result.exception, ConfigurationError)
        assert "TS_FORECAST_SECRET_KEYS is not set" in str(result.exception)


def test_set__wrong_type__is_refused_unquoted() -> None:
    assert "not of the type integer" in str(config("set", "max_parallel_runs", SECRET).exception)
    assert config("set", "x", SECRET, "--type", "colour").exit_code == 2
    assert config("set", "x").exit_code == 2


def test_new_key__makes_a_working_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_FORECAST_SECRET_KEYS", config("new-key").output.strip())

    assert config("set", "api_token", "--secret", typed=SECRET).exit_code == 0


def test_list__schema_is_missing__says_what_to_run(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)

    result = config("list")

    assert isinstance(result.exception, DatabaseError)
    assert "ts-forecast db upgrade" in str(result.exception)
