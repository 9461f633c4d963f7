"""One call sets a process up; the command line, Dagster's code location and its steps make it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ts_forecast.logs.files import FILE_NAME
from ts_forecast.logs.setup import OURS, install, rest, uninstall
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]


def lines(settings: Settings) -> list[dict[str, Any]]:
    content = (settings.log_dir / FILE_NAME).read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()]


def changed(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update=values)


def test_install__our_records_and_others_warnings__are_in_the_file(settings: Settings) -> None:
    install(changed(settings, log_to_database=False))
    logging.getLogger("ts_forecast.a").info("ours")
    logging.getLogger("ts_forecast.a").debug("too low")
    logging.getLogger("library").warning("theirs")
    logging.getLogger("library").info("theirs, too low")

    assert [line["message"] for line in lines(settings)] == ["ours", "theirs"]


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 3), ("WARNING", 1), ("ERROR", 0)])
def test_install__level__decides_what_is_in_the_file(
    settings: Settings, level: str, count: int
) -> None:
    install(changed(settings, log_level=level, log_to_database=False))
    log = logging.getLogger("assets.a")
    log.debug("a")
    log.info("b")
    log.warning("c")

    file = settings.log_dir / FILE_NAME
    assert (len(file.read_text().splitlines()) if file.exists() else 0) == count


def test_install__text__is_for_people(settings: Settings) -> None:
    install(changed(settings, log_format="text", log_to_database=False))
    logging.getLogger("ts_forecast.a").warning("ours")

    content = (settings.log_dir / FILE_NAME).read_text()
    assert content.endswith(" WARNING  ts_forecast.a: ours\n")


def test_install__database__gets_warnings_with_the_user(settings: Settings, engine: Engine) -> None:
    install(changed(settings, user="somebody", log_to_database=True))
    logging.getLogger("ts_forecast.a").info("not there")
    logging.getLogger("library").warning("there")
    rest()

    with engine.connect() as connection:
        rows = connection.execute(text("SELECT log_message, user_id FROM system_logs")).all()
    assert [tuple(row) for row in rows] == [("there", "somebody")]


def test_install__secrets_of_the_settings__are_nowhere(settings: Settings, engine: Engine) -> None:
    install(
        changed(
            settings,
            log_to_database=True,
            database_read_url=Settings(
                _env_file=None, database_read_url="postgresql://me:hunter2@db/x"
            ).database_read_url,
        )
    )
    logging.getLogger("ts_forecast.a").warning("with hunter2", extra={"also": "hunter2"})
    rest()

    with engine.connect() as connection:
        rows = str(connection.execute(text("SELECT * FROM system_logs")).all())
    assert "with ***" in rows
    assert "hunter2" not in rows + (settings.log_dir / FILE_NAME).read_text()


def test_install__again__does_not_write_twice(settings: Settings) -> None:
    for _ in range(3):
        install(changed(settings, log_to_database=False))
    logging.getLogger("ts_forecast.a").warning("once")

    assert len(lines(settings)) == 1
    others = list(logging.getLogger().handlers)
    uninstall()
    assert len(others) - len(logging.getLogger().handlers) == 2


def test_install__others_handlers_and_levels__stay(settings: Settings) -> None:
    root, dagster = logging.getLogger(), logging.getLogger("dagster")
    before, levels = list(root.handlers), (root.level, dagster.level)
    install(changed(settings, log_to_database=False))

    assert root.handlers[: len(before)] == before
    assert (root.level, dagster.level) == levels
    assert {logging.getLogger(name).level for name in OURS} == {logging.INFO}


def test_install__folder_cannot_be_made__says_so_and_goes_on(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.log_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.log_dir.write_text("a file")
    install(changed(settings, log_to_database=False))
    for _ in range(3):
        logging.getLogger("ts_forecast.a").warning("heard by others")

    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "ts-forecast.log cannot be written" in said


def test_install__nothing_logged__makes_no_folder_and_no_thread(settings: Settings) -> None:
    threads = threading.active_count()
    install(changed(settings, log_to_database=True))
    rest()

    assert not settings.log_dir.exists()
    assert threading.active_count() == threads


CODE_LOCATION = """
import logging
# As Dagster's code server does before it loads ours, and once more.
from dagster._utils.log import configure_loggers
configure_loggers(formatter="colored", log_level="INFO")
import assets.definitions
configure_loggers(formatter="colored", log_level="INFO")
logging.getLogger("ts_forecast.a").warning("from our code")
logging.getLogger("dagster.code_server").warning("from Dagster")
"""


def test_code_location__loaded__logs_to_file_and_database_beside_dagster(
    settings: Settings, engine: Engine
) -> None:
    answer = run([sys.executable, "-W", "ignore", "-c", CODE_LOCATION], settings)

    assert answer.returncode == 0, answer.stderr
    with engine.connect() as connection:
        found = connection.scalars(text("SELECT log_message FROM system_logs ORDER BY log_id"))
        assert list(found) == ["from our code", "from Dagster"]
    assert [line["message"] for line in lines(settings)] == ["from our code", "from Dagster"]
    # Dagster shows its own in its way, and ours is shown at last by us.
    assert answer.stdout.count("from Dagster") == 1
    assert "from Dagster" not in answer.stderr
    assert json.loads(answer.stderr.splitlines()[-1])["message"] == "from our code"


CLI = """
import logging, sys
from ts_forecast import cli
from ts_forecast.commands import diagnose
@cli.app.command()
def warn() -> None:
    logging.getLogger("ts_forecast.a").warning("from a command")
sys.argv = ["ts-forecast", "warn"]
cli.main()
"""


def test_cli__command_warns__is_in_file_and_database(settings: Settings, engine: Engine) -> None:
    answer = run([sys.executable, "-c", CLI], settings)

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == ""
    assert json.loads(answer.stderr)["message"] == "from a command"
    assert [line["message"] for line in lines(settings)] == ["from a command"]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT log_message FROM system_logs")) == "from a command"


def test_cli__environment_is_wrong__is_said_by_the_command_alone(settings: Settings) -> None:
    answer = run([sys.executable, "-m", "ts_forecast.cli", "version"], settings, LOG_LEVEL="loud")
    assert answer.returncode == 0, answer.stderr

    answer = run(
        [sys.executable, "-m", "ts_forecast.cli", "db", "current"], settings, LOG_LEVEL="loud"
    )
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert "LOG_LEVEL" in answer.stderr


def run(
    command: list[str], settings: Settings, **environment: str
) -> subprocess.CompletedProcess[str]:
    assert settings.database_url is not None
    return subprocess.run(
        command,
        env=os.environ
        | {
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "TS_FORECAST_HOME": str(settings.home),
            "TS_FORECAST_PIPELINES": str(settings.pipelines_dir),
            "LOG_DIR": str(settings.log_dir),
            "LOG_TO_DATABASE": "true",
        }
        | environment,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=100,
        check=False,
    )
