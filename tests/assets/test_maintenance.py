"""The daily job: it really runs, archives and refreshes, and stands in no pipeline's group."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from assets.definitions import build_definitions
from ts_forecast.db import short_locks
from ts_forecast.db.calendar_partitions import SYSTEM_LOGS
from ts_forecast.db.periods import Period
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]
MONTH = Period.of(datetime.now(UTC), 1)


def execute(settings: Settings) -> tuple[dg.ExecuteInProcessResult, dict[str, dict[str, Any]]]:
    job = build_definitions(settings, {}).resolve_job_def("database_maintenance")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    figures = {
        event.step_key or "": {
            name: value.value for name, value in event.step_output_data.metadata.items()
        }
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_OUTPUT
    }
    return result, figures


def log(engine: Engine, moment: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO system_logs (log_level, log_message, created_at) "
                "VALUES ('INFO', 'x', :at)"
            ),
            {"at": moment},
        )


def test_database_maintenance__run__makes_archives_and_refreshes(
    engine: Engine, settings: Settings
) -> None:
    log(engine, MONTH.shift(-6).start)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO experiments (experiment_name) VALUES ('shop')"))

    first, figures = execute(settings)
    second, again = execute(settings)

    assert first.success and second.success
    assert figures["partitions_ahead"]["rows_moved"] == 1
    assert figures["partitions_ahead"]["made"] >= 7
    assert figures["refresh_views"]["public.mv_experiment_summary"] == 1
    assert again["partitions_ahead"] == {"made": 0, "rows_moved": 0}
    # The row's month was made by the first run; whichever op came first, it is archived by now.
    with engine.connect() as connection:
        archived = connection.scalars(text("SELECT table_name FROM archive.partitions")).all()
        assert connection.scalar(text("SELECT count(*) FROM system_logs")) == 0
    assert archived == [SYSTEM_LOGS.partition(MONTH.shift(-6))]


def test_database_maintenance__table_in_use__fails_in_words_and_the_rest_is_done(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "ATTEMPTS", 2)
    with engine.connect() as reader:
        reader.execute(text("LOCK TABLE system_logs_default IN ACCESS SHARE MODE"))

        result, figures = execute(settings)

    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_key == "partitions_ahead"
    assert failure.step_failure_data.user_failure_data is not None
    description = failure.step_failure_data.user_failure_data.description or ""
    assert "public.system_logs is in use" in description
    assert "db activity" in description
    assert figures.keys() == {"archive_expired", "refresh_views", "leftover_fits"}
    with engine.connect() as connection:
        made = connection.scalar(
            text("SELECT count(*) FROM pg_class WHERE relname ~ 'audit_logs_2'")
        )
        assert made is not None and made >= 3


def test_definitions__maintenance__runs_daily_and_is_no_pipelines(settings: Settings) -> None:
    pipeline = load_pipeline(REPOSITORY / "pipelines" / "air_passengers.yaml")
    definitions = build_definitions(settings, {pipeline.name: pipeline})

    schedule = definitions.resolve_schedule_def("database_maintenance")
    graph = definitions.resolve_asset_graph()

    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("20 3 * * *", "UTC")
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {pipeline.name}
    assert definitions.resolve_job_def(f"materialize_{pipeline.name}")
    with dg.DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(
            dg.build_schedule_context(instance, scheduled_execution_time=MONTH.start)
        )
    assert len(tick.run_requests or []) == 1
