"""``ts-forecast search-spaces`` as users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from ts_forecast.cli import app
from ts_forecast.errors import PipelineError
from ts_forecast.settings import Settings

SPACES = """
nhits_small:
  model: NHITS
  description: For short series.
  space:
    max_steps: {values: [100, 500]}
    learning_rate: {low: 1e-4, high: 1e-1, log: true}
    scaler_type: standard
"""


@pytest.fixture
def deployment(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of spaces in a deployment of this test's database."""
    assert settings.database_url is not None
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TS_FORECAST_HOME", str(settings.home))
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "spaces.yaml"
    file.write_text(SPACES, encoding="utf-8")
    return file


def run(*arguments: str) -> Result:
    answer = CliRunner().invoke(app, ["search-spaces", *arguments])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def test_search_spaces__from_import_to_deactivate(deployment: Path, tmp_path: Path) -> None:
    assert run("import", str(deployment)).output == "nhits_small: added\n"
    assert run("import", str(deployment)).output == "nhits_small: unchanged\n"

    shown = run("list").output
    assert "nhits_small" in shown and "learning_rate, max_steps" in shown
    (listed,) = json.loads(run("list", "--json").output)
    assert (listed["name"], listed["model"], listed["active"]) == ("nhits_small", "NHITS", True)

    printed = run("show", "nhits_small").output
    assert yaml.safe_load(printed)["nhits_small"]["space"]["max_steps"] == {"values": [100, 500]}
    copy = tmp_path / "copies" / "copy.yaml"
    assert run("export", "-o", str(copy)).output == f"written: {copy}\n"
    assert copy.read_text(encoding="utf-8") == printed
    assert run("import", str(copy)).output == "nhits_small: unchanged\n"

    assert run("deactivate", "nhits_small").output == "nhits_small: deactivated\n"
    assert json.loads(run("list", "--json").output) == []
    assert len(json.loads(run("list", "--all", "--json").output)) == 1
    with pytest.raises(
        PipelineError, match="No active search space is called 'nhits_small'; there are: none"
    ):
        run("show", "nhits_small")


def test_import__wrong_file__stores_nothing(deployment: Path) -> None:
    deployment.write_text(SPACES + "  colour: red\n", encoding="utf-8")

    with pytest.raises(PipelineError, match=r"spaces\.yaml: nhits_small\.colour: unknown key"):
        run("import", str(deployment))

    assert json.loads(run("list", "--json").output) == []
