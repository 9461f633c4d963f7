"""What a report says: its sections, read from standing results.

Nothing is computed anew but the checks; how it looks is the template's business. The same results give
the same content: no clock is in it. All but the checks of scores rests on the quarter alone, so it can be
read before the quarters before it are scored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ts_forecast.checks.accuracy import judged_metric
from ts_forecast.checks.quarter import check_features, check_slice
from ts_forecast.checks.result import KINDS, CheckResult
from ts_forecast.datasets.quarter import current_datasets
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import EvaluationError
from ts_forecast.evaluation.leaderboard import quarter_accuracy, telling_series, worst_series
from ts_forecast.evaluation.scoring import ALL
from ts_forecast.pipeline import Pipeline
from ts_forecast.predictions.latest import latest_forecasts
from ts_forecast.quarters import Quarter
from ts_forecast.reports.drawing import as_base64_png, forecast_figure, horizon_figure
from ts_forecast.tables.dataset import Dataset
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import experiment_id
from ts_forecast.tracking.runs import current_run
from ts_forecast.training.quarter import trained_model

_SERIES = 20


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    is_number: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    note: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)
    picture: str = ""


@dataclass(frozen=True)
class Content:
    """A report.

    Attributes:
        run_id: the run whose report it is: the evaluation, or the prediction where nothing is scored.
        checks: of the quarter's data and forecasts; ``with_checks`` makes a section of them.
        appendix: sections that come after it.
    """

    title: str
    subtitle: str
    run_id: int
    sections: list[Section]
    checks: list[CheckResult] = field(default_factory=list)
    appendix: list[Section] = field(default_factory=list)


def report_content(engine: Engine, pipeline: Pipeline, quarter: Quarter) -> Content:
    """Read a quarter's results, all but those that compare it with the quarters before it.

    Raises:
        EvaluationError: the quarter was never forecast.
        ArtifactError: the stored scores are damaged.
    """

    def read(session: Session) -> Content:
        experiment = experiment_id(session, pipeline.name)
        scored = current_run(session, experiment, "evaluate", quarter)
        run = scored or current_run(session, experiment, "predict", quarter)
        if run is None:
            raise EvaluationError(
                f"Pipeline {pipeline.name} has no forecasts of {quarter.label}.",
                remedy=f"Materialize {pipeline.name}/predictions for {quarter.key} first.",
            )
        drift = check_features(session, pipeline, quarter)
        return Content(
            title=f"{pipeline.name}, {quarter.label}",
            subtitle=f"{pipeline.description} " if pipeline.description else "",
            run_id=run.run_id,
            sections=_accuracy(session, pipeline, quarter, experiment, scored),
            checks=[*drift, *check_slice(session, pipeline, quarter)],
            appendix=_lineage(session, pipeline, quarter),
        )

    content = in_transaction(engine, read, read_only=True)
    experiment = in_transaction(
        engine, lambda session: experiment_id(session, pipeline.name), read_only=True
    )
    frame = latest_forecasts(engine, experiment, quarter)
    figure = forecast_figure(
        frame, telling_series(frame), f"{content.title}: the latest forecast of each date"
    )
    extent = f"{frame['unique_id'].nunique()} series, {pipeline.frequency}, "
    sections = [
        *content.sections,
        Section("Forecast against actual", picture=as_base64_png(figure)),
        *_drift(content.checks),
    ]
    return replace(
        content,
        subtitle=f"{content.subtitle}{extent}{pipeline.horizon} steps ahead",
        sections=sections,
    )


def with_checks(content: Content, of_scores: list[CheckResult]) -> Content:
    """The report with all of its sections; checks that compare scores need those of earlier quarters."""
    checks = _table("Checks", _check_rows([*content.checks, *of_scores]))
    sections = [*content.sections, checks, *content.appendix]
    return replace(content, sections=sections, checks=[], appendix=[])


def _accuracy(
    session: Session, pipeline: Pipeline, quarter: Quarter, experiment: int, run: Run | None
) -> list[Section]:
    if run is None:
        return [Section("Accuracy", note="No actual value yet: nothing is scored.")]
    accuracy = quarter_accuracy(session, run.run_id)
    overall = accuracy[accuracy["horizon_bucket"] == ALL]
    models = list(dict.fromkeys(overall["model"]))
    is_coverage = overall["metric"].str.startswith("coverage_")
    by_model = _spread(overall[~is_coverage], "model", "metric").loc[models]
    sections = [_table("Accuracy by model", by_model, "Means over series.")]
    metric = judged_metric(pipeline) or pipeline.metrics[0]
    judged = accuracy[accuracy["metric"] == metric]
    if judged["skill"].notna().any():
        skill = judged[judged["horizon_bucket"] == ALL].set_index("model")[
            ["skill", "min", "median", "max", "series"]
        ]
        sections.append(_table(f"Skill and distribution of {metric} over series", skill))
    steps = _spread(judged[judged["horizon_bucket"] != ALL], "horizon_bucket", "model")
    drawn = as_base64_png(horizon_figure(steps, metric))
    sections.append(_table(f"{metric} by steps ahead", steps, picture=drawn))
    worst = worst_series(session, experiment, quarter, metric=metric, limit=_SERIES)
    note = f"The {len(worst)} largest of all models and series."
    sections.append(_table(f"{metric} by series", worst.set_index("unique_id"), note))
    if pipeline.levels:
        coverage = _spread(overall[is_coverage], "model", "metric")
        note = "Share of actual values inside of each interval; its level is what it should be."
        sections.append(_table("Coverage of intervals", coverage, note))
    return sections


def _drift(results: list[CheckResult]) -> list[Section]:
    sections = []
    for result in results:
        if result.name != "drift":
            continue
        figures = {name: v for name, v in result.figures.items() if not isinstance(v, str)}
        columns = dict.fromkeys(name.partition("_")[2] for name in figures)
        table = pd.DataFrame(
            {
                kind: [figures[f"{kind}_{column}"] for column in columns]
                for kind in ("psi", "limit", "wasserstein")
            },
            index=list(columns),
        )
        sections.append(_table("Drift from the training window", table, result.reason))
    return sections


def _check_rows(results: list[CheckResult]) -> pd.DataFrame:
    rows = [
        {
            "result": "passed" if result.passed else "failed",
            "blocks": "yes" if KINDS[result.name].is_blocking else "no",
            "reason": result.reason,
        }
        for result in results
    ]
    return pd.DataFrame(rows, index=[result.name for result in results])


def _lineage(session: Session, pipeline: Pipeline, quarter: Quarter) -> list[Section]:
    experiment = experiment_id(session, pipeline.name)
    found = [trained_model(session, experiment, spec.name, quarter) for spec in pipeline.models]
    models = [model for model in found if model is not None]
    rows = [_model_row(model) for model in models]
    names = [model.model_name for model in models]
    sections = [_table("Lineage: models", pd.DataFrame(rows, index=names))]
    datasets = current_datasets(session, pipeline, (*pipeline.window(quarter), quarter))
    files = [_dataset_row(part, dataset) for part, dataset in datasets.items()]
    table = pd.DataFrame(files).set_index("quarter") if files else pd.DataFrame()
    return [*sections, _table("Lineage: datasets", table, "The window's, then the quarter's own.")]


def _dataset_row(quarter: Quarter, dataset: Dataset) -> dict[str, object]:
    sources = (dataset.metadata_ or {}).get("sources", [])
    return {
        "quarter": quarter.label,
        "version": dataset.version,
        "rows": dataset.num_rows,
        "sha256": (dataset.file_hash or "")[:16],
        "sources": ", ".join(f"{Path(s['path']).name} {s['sha256'][:12]}" for s in sources),
    }


def _model_row(model: Model) -> dict[str, object]:
    return {
        "class": model.model_type,
        "run": model.run_id,
        "fitted until": (model.model_config or {}).get("fit_until"),
        "observations": model.training_samples,
        "sha256": str((model.metadata_ or {}).get("sha256", ""))[:16],
        "fingerprint": str((model.metadata_ or {}).get("fingerprint", ""))[:16],
    }


def _spread(rows: pd.DataFrame, index: str, columns: str) -> pd.DataFrame:
    """Means with one key down and one across, both in the order of the rows."""
    wide = rows.pivot(index=index, columns=columns, values="mean")
    return wide.loc[list(dict.fromkeys(rows[index])), list(dict.fromkeys(rows[columns]))]


def _table(title: str, frame: pd.DataFrame, note: str = "", *, picture: str = "") -> Section:
    columns = [str(frame.index.name or ""), *map(str, frame.columns)]
    rows = [
        [Cell(str(label)), *(_cell(value) for value in values)]
        for label, values in zip(frame.index, frame.itertuples(index=False), strict=True)
    ]
    return Section(title, note, columns, rows, picture)


def _cell(value: object) -> Cell:
    if isinstance(value, float):
        return Cell(f"{value:.4g}" if math.isfinite(value) else "", True)
    return Cell("" if value is None else str(value), isinstance(value, int))
