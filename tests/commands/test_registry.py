"""``ts-forecast registry`` as people meet it, and the job that does the same."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from assets.definitions import build_definitions
from tests.registry.conftest import Registry, pipeline, registry
from ts_forecast.cli import app
from ts_forecast.db.engine import transaction
from ts_forecast.errors import RegistryError
from ts_forecast.registry import stages
from ts_forecast.settings import Settings

__all__ = ["pipeline", "registry"]


@pytest.fixture(autouse=True)
def deployment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.database_url is not None
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TS_FORECAST_HOME", str(settings.home))
    monkeypatch.setenv("TS_FORECAST_USER", "ann")
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> Result:
    answer = CliRunner().invoke(app, ["registry", *arguments])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def propose(registry: Registry, name: str) -> None:
    with transaction(registry.engine) as session:
        stages.propose(session, stages.find_version(session, name, 1), {"metric": "mae"})


def audited(registry: Registry) -> list[tuple[str, str]]:
    query = (
        "SELECT user_id, new_values ->> 'current_stage' FROM audit.audit_logs "
        "WHERE table_name = 'model_registry' AND changed_fields ? 'current_stage' ORDER BY audit_id"
    )
    with registry.engine.connect() as connection:
        return [(who, stage) for who, stage in connection.execute(text(query))]


def test_registry__from_candidate_to_rollback(registry: Registry) -> None:
    registry.register(["Naive", "SeasonalNaive"])
    propose(registry, "demo/Naive")

    (waiting,) = json.loads(run("list", "demo", "--waiting", "--json").output)
    assert (waiting["name"], waiting["quarter"], waiting["stage"]) == (
        "demo/Naive",
        "2024-Q1",
        "staging, waiting",
    )
    assert run("approve", "demo/Naive", "1", "--why", "fine").output == "demo/Naive 1: production\n"
    bob = ("--why", "holidays", "--by", "bob")
    assert run("promote", "demo/SeasonalNaive", "1", *bob).output.endswith("1: production\n")
    back = run("rollback", "demo", "2024-Q1", "--why", "worse after all").output
    assert back == "demo/SeasonalNaive 1: archived\ndemo/Naive 1: production\n"

    listed = run("list", "--stage", "production").output
    assert "demo/Naive" in listed and "SeasonalNaive" not in listed and "2024-Q1" in listed
    shown = json.loads(run("show", "demo/SeasonalNaive", "1", "--json").output)
    assert shown["decision"]["verdict"] == "rolled back"
    assert (shown["decision"]["by"], shown["decision"]["why"]) == ("ann", "worse after all")
    assert shown["previous_stage"] == "production"
    assert "worse after all" in run("show", "demo/Naive", "1").output
    assert [who for who, _ in audited(registry)] == ["ann", "bob", "bob", "ann", "ann", "ann"]


def test_registry__wrong__says_what_is_right(registry: Registry) -> None:
    registry.register(["Naive"])

    with pytest.raises(RegistryError, match="no candidate.*registry promote"):
        run("approve", "demo/Naive", "1", "--why", "x")
    with pytest.raises(RegistryError, match="nothing is in production"):
        run("rollback", "demo", "2024-Q1", "--why", "x")
    assert run("list", "--stage", "live").exit_code == 2
    assert run("reject", "demo/Naive", "1").exit_code == 2  # Without a reason.
    assert run("reject", "demo/Naive", "1", "--why", "x").output == "demo/Naive 1: archived\n"


@pytest.mark.parametrize(("action", "stage"), [("approve", "production"), ("reject", "archived")])
def test_registry_decision__job__has_the_commands_effect(
    registry: Registry, settings: Settings, action: str, stage: str
) -> None:
    registry.register(["Naive"])
    propose(registry, "demo/Naive")
    job = build_definitions(settings, {}).resolve_job_def("registry_decision")
    config = {"action": action, "name": "demo/Naive", "version": 1, "by": "carol", "why": "agreed"}

    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance, run_config={"ops": {"decide_version": {"config": config}}}
        )
        refused = job.execute_in_process(
            instance=instance,
            run_config={"ops": {"decide_version": {"config": config}}},
            raise_on_error=False,
        )

    assert done.success and not refused.success
    assert audited(registry) == [("carol", stage)]
    with transaction(registry.engine) as session:
        noted = (stages.find_version(session, "demo/Naive", 1).metadata_ or {})["decision"]
    assert (noted["by"], noted["why"]) == ("carol", "agreed")
