"""The report as one HTML file: rendered, stored as an artifact, recorded once."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ts_forecast.checks.quarter import check_scores
from ts_forecast.db.retry import in_transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifact_content import StoredArtifact
from ts_forecast.registry.artifacts import ArtifactStore, record_artifact
from ts_forecast.reports.content import Content, report_content, with_checks
from ts_forecast.settings import Settings
from ts_forecast.tables.registry import Artifact

ARTIFACT_NAME = "report"


def write_report(
    engine: Engine,
    settings: Settings,
    pipeline: Pipeline,
    quarter: Quarter,
    content: Content | None = None,
) -> StoredArtifact:
    """Write the report of a quarter below ``OUTPUT_DIR/reports`` and record it; commits.

    Self-contained: pictures are in it, and its policy forbids every request. The same results give the
    same file and no second row. It compares the scores with those of earlier quarters that stand now.

    Args:
        content: read before (``report_content``); default: it is read now.

    Raises:
        EvaluationError: the quarter was never forecast.
    """
    if content is None:
        content = report_content(engine, pipeline, quarter)
    run_id = content.run_id
    of_scores = in_transaction(
        engine, lambda session: check_scores(session, pipeline, quarter), read_only=True
    )
    page = render(with_checks(content, of_scores))

    def write(draft: Path) -> None:
        draft.write_text(page, encoding="utf-8")

    target = Path("reports", pipeline.name, quarter.key, "report.html")
    stored = ArtifactStore(settings, root=settings.output_dir).write_file(target, write)

    def record(session: Session) -> None:
        is_known = session.scalar(
            select(Artifact.artifact_id).where(
                Artifact.run_id == run_id,
                Artifact.artifact_name == ARTIFACT_NAME,
                Artifact.file_hash == stored.sha256,
            )
        )
        if is_known is None:
            record_artifact(session, run_id, ARTIFACT_NAME, "report", stored)

    in_transaction(engine, record)
    return stored


def render(content: Content) -> str:
    """The page; whatever a name holds is text in it, and never markup."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ts_forecast.reports", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2").render(content=content)
