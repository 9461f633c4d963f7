"""Results of checks, kept with the version that they are of."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.registry.conftest import Registry
from ts_forecast.checks.record import note_results, passed_models
from ts_forecast.checks.result import CheckResult
from ts_forecast.db.engine import transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry.stages import find_version
from ts_forecast.tracking.experiments import ensure_experiment

Q = Quarter(2024, 1)


def make_pipeline(**changes: object) -> Pipeline:
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2022-01-01",
        "models": ["SeasonalNaive", "Naive", "HistoricAverage"],
    }
    return parse_pipeline(content | changes, origin="test")


@pytest.fixture
def registry(engine: Engine) -> Registry:
    pipeline = make_pipeline()
    with transaction(engine) as session:
        made = Registry(engine, pipeline, ensure_experiment(session, pipeline))
    made.register(["SeasonalNaive", "Naive", "HistoricAverage"], Q)
    return made


def note(registry: Registry, name: str, passed: bool) -> None:
    with transaction(registry.engine) as session:
        result = CheckResult("leakage", passed, "because")
        note_results(session, registry.pipeline, Q, name, [result])


def passed(registry: Registry, pipeline: Pipeline | None = None) -> set[str] | None:
    with transaction(registry.engine) as session:
        return passed_models(session, pipeline or registry.pipeline, Q)


def test_passed_models__passed_failed_and_never_checked(registry: Registry) -> None:
    nobody = passed(registry)
    note(registry, "SeasonalNaive", True)
    note(registry, "Naive", False)

    assert (nobody, passed(registry)) == (set(), {"SeasonalNaive"})
    note(registry, "Naive", True)
    assert passed(registry) == {"SeasonalNaive", "Naive"}


def test_passed_models__no_check_of_models_is_made__nobody_is_left_out(registry: Registry) -> None:
    assert passed(registry, make_pipeline(checks={"skip": ["leakage"]})) is None


def test_passed_models__a_new_version__starts_without_results(registry: Registry) -> None:
    note(registry, "Naive", True)
    before = passed(registry)
    registry.register(["Naive"], Q)

    assert (before, passed(registry)) == ({"Naive"}, set())


def test_note_results__keeps_what_else_is_noted_and_writes_nothing_twice(
    registry: Registry,
) -> None:
    with transaction(registry.engine) as session:
        find_version(session, "demo/Naive", 1).metadata_ = {"candidate": {"metric": "mae"}}
    note(registry, "Naive", True)
    with transaction(registry.engine) as session:
        first = find_version(session, "demo/Naive", 1)
        noted, changed_at = first.metadata_, first.updated_at
    note(registry, "Naive", True)

    assert noted == {
        "candidate": {"metric": "mae"},
        "checks": {"leakage": {"passed": True, "reason": "because"}},
    }
    with transaction(registry.engine) as session:
        assert find_version(session, "demo/Naive", 1).updated_at == changed_at
