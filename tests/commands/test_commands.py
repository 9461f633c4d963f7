"""The command line as users meet it: output, files, rows and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, text

from ts_forecast.db import migrate
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a deployment in this test's folders and database."""
    assert settings.database_url is not None
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TS_FORECAST", "DAGSTER"))}
    return clean | {
        "TS_FORECAST_HOME": str(settings.home),
        "TS_FORECAST_PIPELINES": str(settings.pipelines_dir),
        "DATA_DIR": str(settings.data_dir),
        "MODEL_DIR": str(settings.model_dir),
        "OUTPUT_DIR": str(settings.output_dir),
        "LOG_DIR": str(settings.log_dir),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ts_forecast.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=200,
        check=False,
    )


def demand(path: Path, days: int = 200) -> Path:
    rng = np.random.default_rng(2)
    stamps = pd.date_range("2024-01-01", periods=days)
    parts = [
        pd.DataFrame(
            {
                "series_id": name,
                "Date": stamps,
                "Load": 50 * level
                + 9 * np.sin(stamps.dayofweek / 7 * 6.28)
                + rng.normal(size=days),
            }
        )
        for level, name in enumerate(["north", "south"], start=1)
    ]
    pd.concat(parts).to_csv(path, index=False)
    return path


def test_help__of_everything__is_there_at_once(environment: dict[str, str]) -> None:
    begun = time.monotonic()
    answer = run(environment, "--help")
    seconds = time.monotonic() - begun

    assert answer.returncode == 0
    assert "Exit codes" in answer.stdout
    assert seconds < 5  # under 1 s on a quiet host
    for command in ("demo", "dev", "materialize", "run", "db", "pipelines", "doctor"):
        assert run(environment, command, "--help").returncode == 0


def test_run__any_file__writes_forecasts_metrics_and_rows(
    environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    arguments = [
        "run",
        "--data-path",
        str(demand(tmp_path / "demand.csv")),
        "--models",
        "MLP,DLinear",
    ]
    arguments += ["--horizons", "7,14", "--max-steps", "3", "--levels", "80"]
    arguments += ["--output-dir", str(tmp_path / "out")]

    first = run(environment, *arguments)

    assert first.returncode == 0, first.stderr
    assert "time column 'Date', series column 'series_id', target column 'Load'" in first.stdout
    forecasts = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == len(forecasts)
    # Three models with the baseline, two series, from the holdout's cutoff and from the end.
    assert len(forecasts) == 3 * 2 * 2 * (7 + 14)
    future = forecasts[forecasts["ds"] > "2024-07-18"]
    assert future["actual_value"].isna().all()
    assert (forecasts["lower_80"] <= forecasts["upper_80"]).all()
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert {"mae", "rmse", "smape", "mase"} <= set(metrics["metric"])
    holdout = forecasts[(forecasts["horizon"] == 7) & forecasts["actual_value"].notna()]
    naive = holdout[holdout["model"] == "SeasonalNaive"]
    expected = (naive["predicted_value"] - naive["actual_value"]).abs().mean()
    found = metrics.query("horizon == 7 and model == 'SeasonalNaive' and metric == 'mae'")["value"]
    assert found.iloc[0] == pytest.approx(expected)
    with engine.connect() as connection:
        counts = {
            table: connection.scalar(text(f"SELECT count(*) FROM {table}"))
            for table in ("experiments", "runs", "models", "predictions")
        }
    assert counts == {"experiments": 2, "runs": 8, "models": 6, "predictions": len(forecasts)}

    second = run(environment, *arguments)

    assert second.returncode == 0, second.stderr
    assert "6 models were on record and not fitted again" in second.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "pattern"),
    [
        (["run", "--data-path", "absent.csv"], 3, "there is no such file"),
        (["run", "--data-path", "DEMAND", "--models", "NHITZ"], 2, "unknown model 'NHITZ'"),
        (["run", "--data-path", "DEMAND", "--horizons", "soon"], 2, "no list of whole numbers"),
        (["run", "--data-path", "DEMAND", "--target-column", "Lod"], 3, "no column 'Lod'"),
        (["run", "--data-path", "DEMAND", "--horizons", "400"], 3, "needs 407"),
        (["db", "upgrade", "nowhere"], 5, "Alembic refused"),
        (
            ["materialize", "absent", "--from", "2024-Q1", "--to", "2024-Q2"],
            2,
            "no pipeline 'absent'",
        ),
        (["fly"], 2, "No such command"),
    ],
)
def test_commands__wrong__one_line_and_its_exit_code(
    environment: dict[str, str], tmp_path: Path, arguments: list[str], code: int, pattern: str
) -> None:
    file = demand(tmp_path / "demand.csv")

    answer = run(environment, *[str(file) if a == "DEMAND" else a for a in arguments])

    assert answer.returncode == code, answer.stderr
    assert pattern in answer.stderr
    assert "Traceback" not in answer.stderr


def test_db__current_and_history__say_where_the_schema_is(environment: dict[str, str]) -> None:
    assert run(environment, "db", "current").stdout.strip() == f"{migrate.head()} (head)"
    assert f"* {migrate.head()}" in run(environment, "db", "history").stdout
    assert run(environment, "db", "downgrade", "base", "--yes").returncode == 0
    assert run(environment, "db", "current").returncode == 1
    assert run(environment, "db", "upgrade").returncode == 0


def test_doctor__fresh_deployment__finds_what_is_missing(
    environment: dict[str, str], settings: Settings
) -> None:
    healthy = run(environment, "doctor", "--json")
    findings = {item["subject"]: item for item in json.loads(healthy.stdout)}

    assert healthy.returncode == 0
    assert findings["schema"]["status"] == "ok"
    assert findings["pipelines"]["status"] == "warning"

    settings.pipelines_dir.mkdir(parents=True)
    (settings.pipelines_dir / "bad.yaml").write_text("horizn: 3\n")
    broken = run(environment | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "doctor")

    assert broken.returncode == 1
    assert "does not answer" in broken.stdout
    assert "horizn: unknown key" in broken.stdout


def test_pipelines_check__source_lacks_a_column__exit_code_2(
    environment: dict[str, str], settings: Settings
) -> None:
    settings.pipelines_dir.mkdir(parents=True)
    raw = settings.data_dir / "raw"
    raw.mkdir(parents=True)
    demand(raw / "demand.csv")
    file = settings.pipelines_dir / "demand.yaml"
    file.write_text(
        "source: {files: raw/demand.csv, id_column: series_id, time_column: Date, target_column: Lod}\n"
        "frequency: D\nhorizon: 7\nstart: 2024-01-01\nmodels: [SeasonalNaive]\n"
    )

    wrong = run(environment, "pipelines", "check")
    file.write_text(file.read_text().replace("Lod", "Load"))

    assert wrong.returncode == 2
    assert "no column 'Lod'" in wrong.stdout
    assert run(environment, "pipelines", "check").returncode == 0
    assert "demand" in run(environment, "pipelines", "list").stdout
