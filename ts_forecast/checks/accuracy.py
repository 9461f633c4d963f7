"""Checks of what scoring found: skill, coverage and decay.

Pure: frames of ``evaluation.leaderboard`` in, results out. All are warnings: the forecasts stand.
"""

from __future__ import annotations

import pandas as pd

from ts_forecast.checks.result import CheckResult
from ts_forecast.evaluation.scoring import ALL
from ts_forecast.pipeline import Pipeline

# Relative to the series' size first: a quarter of larger values is no worse.
_PREFERRED = ("mase", "rmsse", "smape", "mape", "mae", "rmse", "mse")
_FEWEST_QUARTERS = 2


def judged_metric(pipeline: Pipeline) -> str | None:
    """The metric that decay and skill are judged by; None if only a bias is measured."""
    return next((name for name in _PREFERRED if name in pipeline.metrics), None)


def check_accuracy(
    accuracy: pd.DataFrame, previous: pd.DataFrame, pipeline: Pipeline
) -> list[CheckResult]:
    """All checks of a scored quarter.

    Args:
        accuracy: as ``quarter_accuracy`` gives it.
        previous: ``quarter, model, mean`` of the judged metric, of earlier quarters.
    """
    overall = accuracy[accuracy["horizon_bucket"] == ALL]
    results = []
    metric = judged_metric(pipeline)
    if metric is not None:
        measured = overall[overall["metric"] == metric]
        results.append(check_skill(measured, pipeline, metric))
        results.append(check_decay(measured, previous, pipeline, metric))
    if pipeline.levels:
        results.append(check_coverage(overall, pipeline))
    return results


def check_skill(measured: pd.DataFrame, pipeline: Pipeline, metric: str) -> CheckResult:
    """Every model but the baseline has at least the wanted skill."""
    baseline = pipeline.baseline_model
    if baseline is None:
        return CheckResult("beats_baseline", True, "the pipeline has no baseline")
    others = measured[(measured["model"] != baseline.name) & measured["skill"].notna()]
    skills = {str(m): float(s) for m, s in zip(others["model"], others["skill"], strict=True)}
    figures: dict[str, float | int | str] = {
        f"skill_{model}": skill for model, skill in skills.items()
    }
    behind = [name for name, skill in skills.items() if skill < pipeline.checks.min_skill]
    if behind:
        said = ", ".join(f"{name} {skills[name]:.3f}" for name in behind)
        reason = f"skill by {metric} against {baseline.name} too low: {said}"
    else:
        reason = f"{len(skills)} models compared with {baseline.name} by {metric}"
    return CheckResult("beats_baseline", not behind, reason, figures)


def check_coverage(overall: pd.DataFrame, pipeline: Pipeline) -> CheckResult:
    """The mean coverage of every model and level is near the level."""
    figures: dict[str, float | int | str] = {}
    problems = []
    tolerance = pipeline.checks.coverage_tolerance
    for level in pipeline.levels:
        name = f"coverage_{level}"
        for model, mean in _means(overall[overall["metric"] == name]).items():
            figures[f"{name}_{model}"] = mean
            if abs(mean - level / 100) > tolerance:
                problems.append(f"{model}'s {level} % holds {mean:.1%}")
    reason = "; ".join(problems) or f"every interval within {tolerance:.0%} of its level"
    return CheckResult("interval_coverage", not problems, reason, figures)


def check_decay(
    measured: pd.DataFrame, previous: pd.DataFrame, pipeline: Pipeline, metric: str
) -> CheckResult:
    """The error of every model against the median of its last quarters."""
    figures: dict[str, float | int | str] = {}
    problems = []
    before = previous.sort_values("quarter").groupby("model")["mean"]
    for model, mean in _means(measured).items():
        if model not in before.groups:
            continue
        last = before.get_group(model).dropna().tail(pipeline.checks.decay_quarters)
        usual = float(last.median())
        if len(last) < _FEWEST_QUARTERS or not usual > 0:
            continue
        growth = mean / usual - 1
        figures[f"growth_{model}"] = growth
        if growth > pipeline.checks.max_decay:
            problems.append(f"{model}'s {metric} is {mean:.4g}, {growth:.0%} above {usual:.4g}")
    reason = "; ".join(problems)
    if not reason:
        known = f"{len(figures)} models compared with their quarters before by {metric}"
        reason = known if figures else f"fewer than {_FEWEST_QUARTERS} quarters before were scored"
    return CheckResult("accuracy_decay", not problems, reason, figures)


def _means(rows: pd.DataFrame) -> dict[str, float]:
    return {
        str(model): float(mean) for model, mean in zip(rows["model"], rows["mean"], strict=True)
    }
