"""The report of a real quarter: everything on one page, nothing from elsewhere, stored once."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import yaml
from sqlalchemy import select, update
from typer.testing import CliRunner

from ts_forecast.cli import app
from ts_forecast.db.engine import transaction
from ts_forecast.errors import EvaluationError
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.registry.artifacts import verify_artifact
from ts_forecast.reports.content import Cell, Content, Section
from ts_forecast.reports.page import render, write_report
from ts_forecast.tables.registry import Artifact
from ts_forecast.tables.training import Model

if TYPE_CHECKING:
    from tests.evaluation.conftest import Problem


class Addresses(HTMLParser):
    """Collects whatever a browser would fetch or follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"src", "href", "srcset", "action", "data", "background"}
        self.found += [str(value) for name, value in attrs if name in names]


def artifacts(problem: Problem) -> list[Artifact]:
    with transaction(problem.engine) as session:
        query = select(Artifact).where(Artifact.artifact_name == "report")
        return list(session.scalars(query))


def test_write_report__scored_quarter__everything_on_one_page_stored_once(
    problem: Problem,
) -> None:
    problem.publish(problem.rows())
    score = score_quarter(problem.engine, problem.settings, problem.pipeline, problem.quarter)
    arguments = (problem.engine, problem.settings, problem.pipeline, problem.quarter)

    first, second = write_report(*arguments), write_report(*arguments)

    assert (
        first.path
        == second.path
        == problem.settings.output_dir / ("reports/demo/2023-01-01/report.html")
    )
    (row,) = artifacts(problem)
    assert row.run_id == score.run_id
    verify_artifact(row)
    page = first.path.read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Accuracy by model",
        "Skill and distribution of mase over series",
        "mase by steps ahead",
        "mase by series",
        "Coverage of intervals",
        "Forecast against actual",
        "Drift from the training window",
        "Checks",
        "Lineage: models",
        "Lineage: datasets",
    ]
    addresses = Addresses()
    addresses.feed(page)
    assert len(addresses.found) == 2
    assert all(address.startswith("data:image/png;base64,") for address in addresses.found)
    assert "http" not in re.sub(r"http-equiv|base64,[^\"]*", "", page)
    assert "<script" not in page
    # The fixture's models have no record of what they were fitted on: a check that failed.
    assert '<td class=" failed">failed</td>' in page
    assert "demo.csv" in page


def test_write_report__no_actuals__says_so_and_belongs_to_the_prediction(problem: Problem) -> None:
    run_id = problem.publish(problem.rows(with_actuals=False))

    stored = write_report(problem.engine, problem.settings, problem.pipeline, problem.quarter)

    assert "nothing is scored" in stored.path.read_text(encoding="utf-8")
    assert [row.run_id for row in artifacts(problem)] == [run_id]


def test_write_report__republished__another_file_beside_the_first(problem: Problem) -> None:
    problem.publish(problem.rows())
    arguments = (problem.engine, problem.settings, problem.pipeline, problem.quarter)
    score_quarter(*arguments)
    first = write_report(*arguments)
    with transaction(problem.engine) as session:
        session.execute(update(Model).values(training_samples=7))

    second = write_report(*arguments)

    assert first.path != second.path
    assert len(artifacts(problem)) == 2


def test_write_report__never_forecast__refuses(problem: Problem) -> None:
    with pytest.raises(EvaluationError, match="demo has no forecasts of 2023-Q1.*predictions"):
        write_report(problem.engine, problem.settings, problem.pipeline, problem.quarter)


def test_render__markup_in_a_name__is_text() -> None:
    rows = [[Cell("<script>alert(1)</script>")]]

    page = render(Content("a & b", "", 1, [Section("x", columns=["series"], rows=rows)]))

    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page


def test_report__command__writes_a_copy(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    problem.publish(problem.rows())
    settings = problem.settings
    settings.pipelines_dir.mkdir()
    content = problem.pipeline.model_dump(mode="json", exclude_defaults=True)
    (settings.pipelines_dir / "demo.yaml").write_text(yaml.safe_dump(content))
    for name, value in {
        "TS_FORECAST_PIPELINES": settings.pipelines_dir,
        "DATABASE_URL": settings.database_url.get_secret_value(),  # type: ignore[union-attr]
        "DATA_DIR": settings.data_dir,
        "OUTPUT_DIR": settings.output_dir,
    }.items():
        monkeypatch.setenv(name, str(value))
    target = settings.output_dir.parent / "copy.html"

    wrong = CliRunner().invoke(app, ["report", "dmeo", "2023-Q1"])
    done = CliRunner().invoke(app, ["report", "demo", "2023-Q1", "--output", str(target)])

    assert "There is no pipeline 'dmeo'" in str(wrong.exception)
    assert done.exit_code == 0, done.output
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
