"""The house rules that a machine can see."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from ts_forecast.errors import SourceError
from ts_forecast.pipeline_file import json_schema

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("ts_forecast", "resources", "assets")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def run(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return answer.stdout.strip().splitlines()[-1]


def test_definitions__loaded__within_three_seconds_and_without_torch(tmp_path: Path) -> None:
    code = (
        "import json, sys, time; begun = time.process_time(); import assets.definitions; "
        "heavy = ['torch', 'neuralforecast', 'statsforecast', 'ray', 'matplotlib']; "
        "print(json.dumps([time.process_time() - begun, [m for m in heavy if m in sys.modules]]))"
    )

    seconds, heavy = json.loads(run(code))

    assert heavy == []
    # Processor time: the wall clock of a busy host says nothing about us.
    assert seconds < 3


def test_ts_forecast__all_of_it_imported__knows_no_dagster() -> None:
    names = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in MODULES
        if path.parts[-2] != "resources" and "ts_forecast" in path.relative_to(REPOSITORY).parts
    ]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; "
    code += "print([m for m in sys.modules if m.split('.')[0] in ('dagster', 'torch')])"

    assert run(code) == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_module__has_a_charter_and_a_bearable_length(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert ast.get_docstring(ast.parse(text)), "each module starts with its charter"
    assert len(text.splitlines()) <= 400


def test_schema_of_pipeline_files__is_current() -> None:
    stored = json.loads((REPOSITORY / "docs" / "pipeline.schema.json").read_text())

    assert stored == json_schema()


def test_model_catalogue__is_that_of_the_installed_libraries() -> None:
    code = (
        "import json, warnings; warnings.simplefilter('ignore'); "
        "from ts_forecast.model_catalogue import inspect_libraries; "
        "print(json.dumps(inspect_libraries()))"
    )
    stored = json.loads((REPOSITORY / "ts_forecast" / "model_catalogue.json").read_text())

    assert json.loads(run(code)) == stored


def test_errors__cross_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(SourceError("bad.csv, row 3: no.", remedy="Mend it.")))

    assert (error.problem, error.remedy, error.exit_code) == ("bad.csv, row 3: no.", "Mend it.", 3)


def test_readme__names_files_and_commands_that_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")

    for target in ("demo", "test", "help"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile
    for line in readme.splitlines():
        if line.startswith("| ") and "`tests/" in line:
            for name in (part for part in line.split("`") if part.startswith("tests/")):
                assert (REPOSITORY / name).exists(), name
    help_text = subprocess.run(
        [sys.executable, "-m", "ts_forecast.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    ).stdout
    for command in ("demo", "dev", "materialize", "run", "db", "pipelines", "doctor"):
        assert command in help_text
