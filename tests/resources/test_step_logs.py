"""A step's records: in the file, in ``system_logs`` and in Dagster's event log, each once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from executor_harness import Deployment, execute
from sqlalchemy import text

from ts_forecast.db import migrate
from ts_forecast.db.database import open_database
from ts_forecast.logs.files import FILE_NAME


def test_step__logs_warnings__are_in_file_database_and_event_log_once(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_DIR", str(tmp_path))
    monkeypatch.setenv("LOG_TO_DATABASE", "true")
    database = open_database(deployment.settings)
    migrate.upgrade(database.engine)

    result = execute(deployment, "warning")

    assert result.success
    said = ["from our code", "from a library"]
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    ours = [line for line in lines if line["message"] in said]
    assert [line["message"] for line in ours] == said
    assert {(line["dagster_run"], line["step"]) for line in ours} == {(result.run_id, "warn")}
    assert os.getpid() not in {line["pid"] for line in ours}
    with database.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT log_message, extra_data ->> 'step' FROM system_logs ORDER BY log_id")
        ).all()
    database.dispose()
    assert [tuple(row) for row in rows if row[0] in said] == [(m, "warn") for m in said]
    events = [entry.user_message for entry in deployment.instance.all_logs(result.run_id)]
    # Dagster is told to manage our loggers, and no library's.
    assert events.count("from our code") == 1
    assert events.count("from a library") == 0
