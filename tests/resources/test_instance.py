"""The instance: dagster.yaml loads against PostgreSQL and holds what the executor relies on."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster._core.run_coordinator import QueuedRunCoordinator
from executor_harness import Deployment
from pydantic import SecretStr

from resources.event_log import PromptEventLogStorage
from resources.gpu_pool import ensure_pool_limits
from resources.instance import INSTANCE_FILE, dagster_environment, prepare_dagster_home
from ts_forecast.db.database import open_database
from ts_forecast.errors import SettingsError
from ts_forecast.settings import Settings

URL = SecretStr("postgresql+psycopg2:///somewhere")


def test_instance__is_on_postgresql_with_monitoring(deployment: Deployment) -> None:
    instance = deployment.instance

    assert isinstance(instance.event_log_storage, PromptEventLogStorage)
    assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
    assert instance.run_monitoring_enabled and not instance.telemetry_enabled
    assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] > 0
    assert instance.event_log_storage.get_pool_config().default_pool_limit == 4


def test_prepare_dagster_home__puts_in_the_number_of_runs(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, max_parallel_runs=7)

    home = prepare_dagster_home(settings, URL)

    assert home == settings.dagster_home
    assert "max_concurrent_runs: 7" in (home / INSTANCE_FILE).read_text()


def test_prepare_dagster_home__leaves_an_equal_file_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    file = prepare_dagster_home(settings, URL) / INSTANCE_FILE
    before = file.stat().st_mtime_ns

    prepare_dagster_home(settings, URL)

    assert file.stat().st_mtime_ns == before
    assert [path.name for path in file.parent.iterdir()] == [INSTANCE_FILE]


def test_prepare_dagster_home__refuses_a_url_that_picks_psycopg3(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"postgresql\+psycopg2://") as caught:
        prepare_dagster_home(Settings(home=tmp_path), SecretStr("postgresql://u:hidden@host/db"))

    assert "hidden" not in str(caught.value)


def test_dagster_environment__leaves_the_embedded_server_to_each_process(
    deployment: Deployment,
) -> None:
    database = open_database(deployment.settings)

    environment = dagster_environment(deployment.settings, database)

    database.engine.dispose()
    assert "DATABASE_URL" not in environment
    assert environment["PYTHONHASHSEED"] == "0"
    assert environment["TS_FORECAST_DEVICES"] == "fake-a,fake-b"


def test_ensure_pool_limits__follows_the_devices(deployment: Deployment) -> None:
    storage = deployment.instance.event_log_storage
    try:
        limit = ensure_pool_limits(
            deployment.instance, Settings(devices=("a", "b", "c"), enable_gpu=True)
        )
        assert limit == 3 == storage.get_concurrency_info("gpu").slot_count
    finally:
        assert ensure_pool_limits(deployment.instance, deployment.settings) == 2
    assert storage.get_concurrency_info("gpu").slot_count == 2


def test_dagster_environment__secrets_and_logs__reach_the_children(
    deployment: Deployment,
) -> None:
    settings = deployment.settings.model_copy(
        update={
            "database_read_url": SecretStr("postgresql+psycopg://reader@replica/db"),
            "secret_keys": SecretStr("a key"),
            "webhook_url": SecretStr("https://hooks.example.org/x"),
            "user": "ops",
            "log_to_database": False,
            "slots": 3,
            "ray_address": "10.0.0.5:6379",
            "ray_namespace": "forecasts",
        }
    )
    database = open_database(deployment.settings)

    environment = dagster_environment(settings, database)

    database.dispose()
    assert environment["TS_FORECAST_SECRET_KEYS"] == "a key"
    assert environment["DATABASE_READ_URL"] == "postgresql+psycopg://reader@replica/db"
    assert environment["TS_FORECAST_USER"] == "ops"
    assert environment["LOG_TO_DATABASE"] == "false"
    # Whatever can stand in .env, which only the process in that folder reads.
    known = {
        str(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()
    }
    assert known - set(environment) == {"DATABASE_URL"}
