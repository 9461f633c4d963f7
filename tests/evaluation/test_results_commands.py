"""``ts-forecast leaderboard`` and ``forecasts``: what people read, from the replica where there is one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner

from ts_forecast import cli
from ts_forecast.errors import DatabaseError
from ts_forecast.evaluation.quarter import score_quarter

if TYPE_CHECKING:
    from tests.evaluation.conftest import Problem


@pytest.fixture
def scored(problem: Problem, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """A scored slice in what the commands take for the replica; the other database is empty."""
    problem.publish(problem.rows())
    score_quarter(problem.engine, problem.settings, problem.pipeline, problem.quarter)
    monkeypatch.setenv("TS_FORECAST_HOME", str(problem.settings.home))
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    url = problem.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_READ_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    return problem


def test_leaderboard__scored_quarter__best_model_first(scored: Problem) -> None:
    answer = CliRunner().invoke(cli.app, ["leaderboard", "demo", "--json"])
    board = json.loads(answer.output)

    assert [(row["quarter"], row["model"]) for row in board] == [
        ("2023-Q1", "Other"),
        ("2023-Q1", "SeasonalNaive"),
    ]
    assert [row["mean"] for row in board] == pytest.approx([1.0, 2.0])
    table = CliRunner().invoke(cli.app, ["leaderboard", "demo"]).output
    assert table.index("Other") < table.index("SeasonalNaive")
    assert (
        "no scores by wape"
        in CliRunner().invoke(cli.app, ["leaderboard", "demo", "--metric", "wape"]).output
    )


def test_forecasts__quarter__as_csv_and_as_files(scored: Problem, tmp_path: Path) -> None:
    answer = CliRunner().invoke(cli.app, ["forecasts", "demo", "2023-Q1"])
    frame = pd.read_csv(io.StringIO(answer.output))

    assert set(frame["model"]) == {"Other", "SeasonalNaive"}
    assert not frame.duplicated(["model", "unique_id", "ds"]).any()
    for name, read in (("f.csv", pd.read_csv), ("f.parquet", pd.read_parquet)):
        arguments = ["--series", "a", "--output", str(tmp_path / name)]
        assert (
            CliRunner().invoke(cli.app, ["forecasts", "demo", "2023-Q1", *arguments]).exit_code == 0
        )
        one = read(tmp_path / name)
        assert set(one["unique_id"]) == {"a"}
        assert len(one) == len(frame) // 3


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["leaderboard", "absent"], "knows no pipeline 'absent'"),
        (["forecasts", "absent", "2023-Q1"], "knows no pipeline 'absent'"),
    ],
)
def test_results__unknown_pipeline__says_so(
    scored: Problem, arguments: list[str], pattern: str
) -> None:
    answer = CliRunner().invoke(cli.app, arguments)

    assert isinstance(answer.exception, DatabaseError)
    assert pattern in str(answer.exception)


def test_forecasts__output_of_another_kind__is_refused(scored: Problem) -> None:
    answer = CliRunner().invoke(cli.app, ["forecasts", "demo", "2023-Q1", "--output", "a.xlsx"])

    assert answer.exit_code == 2
    assert ".csv or .parquet" in answer.output
