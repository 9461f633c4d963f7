"""The sensors, on an instance with real runs: who failed, in which quarter, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from assets.datasets import build_dataset_assets
from assets.failure_sensors import build_failure_sensors
from resources.postgres import postgres_resource
from tests.end_to_end.conftest import Problem
from tests.logs.test_failures import Receiver
from ts_forecast.settings import Settings

QUARTER = "2023-04-01"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


def watched(settings: Settings, receiver: Receiver) -> Settings:
    changes = {"webhook_url": SecretStr(receiver.url), "log_to_database": True}
    return settings.model_copy(update=changes)


def rows(engine: Engine) -> list[tuple[str, str]]:
    query = (
        "SELECT log_level, log_message FROM system_logs WHERE log_source = 'ts_forecast.failures'"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"{query} ORDER BY log_id"))]


def test_run_failures__a_bad_file__one_line_in_the_log_and_to_the_webhook(
    problem: Problem, engine: Engine, receiver: Receiver
) -> None:
    problem.write(problem.frame.assign(y="many"))
    sensor, _ = build_failure_sensors(watched(problem.settings, receiver), ["shop"])
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            build_dataset_assets(problem.pipeline),
            partition_key=QUARTER,
            instance=instance,
            raise_on_error=False,
            resources={"postgres": postgres_resource(problem.settings)},
        )
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name,
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()

        sensor(context)

    ((level, line),) = rows(engine)
    assert level == "ERROR"
    assert line.startswith("shop, 2023-Q2, datasets: ")
    assert "shop.csv" in line
    assert receiver.bodies == [{"text": f"ERROR: {line}"}]


def test_check_failures__new_ones_once_each(
    make_problem: Callable[..., Problem], engine: Engine, receiver: Receiver
) -> None:
    gaps = make_problem(checks={"max_missing_share": 0, "skip": ["drift"]})
    _, sensor = build_failure_sensors(watched(gaps.settings, receiver), ["shop"])

    def materialize(instance: dg.DagsterInstance) -> None:
        dg.materialize(
            build_dataset_assets(gaps.pipeline),
            partition_key=QUARTER,
            instance=instance,
            resources={"postgres": postgres_resource(gaps.settings)},
        )

    def tick(instance: dg.DagsterInstance, cursor: str | None) -> str | None:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        sensor.evaluate_tick(context)
        return context.cursor

    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance)
        cursor = tick(instance, None)
        # What failed before the first tick is not reported.
        assert rows(engine) == []
        materialize(instance)
        cursor = tick(instance, cursor)
        tick(instance, cursor)

    ((level, line),) = rows(engine)
    assert level == "WARNING"
    assert line.startswith("shop, 2023-Q2, datasets: check gaps failed: 5 of 273 points without")
    assert receiver.bodies == [{"text": f"WARNING: {line}"}]


def test_build_failure_sensors__both_run_by_default(settings: Settings) -> None:
    sensors = build_failure_sensors(settings, [])

    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}
