"""Backfill four quarters of two real problems through the UI's GraphQL, and say how accurate they are.

``python benchmarks/real_backfills.py --data FOLDER nord_pool pasta`` starts a deployment of its own
(embedded PostgreSQL, webserver, daemon) in a fresh folder, launches one backfill of all assets a
problem, counts the prediction rows against the definition, and prints the mean absolute error of each
model and quarter; for Nord Pool beside the published forecasts of the same hours.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import psutil
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from assets.backfill import BackfillError, Webserver
from ts_forecast.db.database import open_database
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipeline
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings

_HERE = Path(__file__).parent
_SOURCES = {
    "nord_pool": ("epf/NP.csv", "2017-Q1", "2017-Q4"),
    "pasta": ("pasta_sales/hierarchical_sales_data.csv", "2018-Q1", "2018-Q4"),
}
_PUBLISHED = "epf/Forecasts_NP_DNN_LEAR_ensembles.csv"
console = Console()


def main(
    problems: Annotated[list[str], typer.Argument(help=f"Of {', '.join(_SOURCES)}.")],
    data: Annotated[Path, typer.Option(help="The folder of the real data sets.", exists=True)],
    folder: Annotated[
        Path | None, typer.Option(help="Where the deployment lives; default: a temporary folder.")
    ] = None,
    port: Annotated[int, typer.Option(help="The webserver's port.")] = 3210,
    minutes: Annotated[float, typer.Option(help="Longest time for one backfill.")] = 60,
) -> None:
    """Run the backfills and print a table a problem."""
    place = folder or Path(tempfile.mkdtemp(prefix="ts-forecast-"))
    settings = _lay_out(place, problems, data)
    with (place / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "assets.serve", "--port", str(port)],
            env=_environment(settings),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        webserver = Webserver(f"http://127.0.0.1:{port}", timeout=120)
        for name in problems:
            _backfill(webserver, settings, name, data, minutes)
    finally:
        _end(server)


def _lay_out(place: Path, problems: list[str], data: Path) -> Settings:
    raw = place / "data" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (place / "pipelines").mkdir(exist_ok=True)
    for name in problems:
        source = data / _SOURCES[name][0]
        shutil.copy2(source, raw / source.name)
        shutil.copy(_HERE / "pipelines" / f"{name}.yaml", place / "pipelines")
    return Settings(
        _env_file=None,
        home=place / "home",
        pipelines_dir=place / "pipelines",
        data_dir=place / "data",
        model_dir=place / "models",
        output_dir=place / "outputs",
        log_dir=place / "logs",
    )


def _environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "TS_FORECAST_HOME": str(settings.home),
        "TS_FORECAST_PIPELINES": str(settings.pipelines_dir),
        "DATA_DIR": str(settings.data_dir),
        "MODEL_DIR": str(settings.model_dir),
        "OUTPUT_DIR": str(settings.output_dir),
        "LOG_DIR": str(settings.log_dir),
    }


def _backfill(
    webserver: Webserver, settings: Settings, name: str, data: Path, minutes: float
) -> None:
    pipeline = load_pipeline(settings.pipelines_dir / f"{name}.yaml")
    first, last = (Quarter.parse(label) for label in _SOURCES[name][1:])
    quarters = list(quarter_range(first, last))
    keys = _wait_for_assets(webserver, name)
    begun = time.monotonic()
    state = webserver.wait(
        webserver.launch(keys, [quarter.key for quarter in quarters]), seconds=minutes * 60
    )
    seconds = time.monotonic() - begun
    console.print(
        f"{name}: backfill of {len(keys)} assets × {len(quarters)} quarters {state.status} "
        f"in {seconds:.0f} s, {len(state.runs)} runs"
    )
    if not state.succeeded:
        raise typer.Exit(1)
    database = open_database(settings)
    _print_accuracy(database.engine, pipeline, quarters, data if name == "nord_pool" else None)
    database.engine.dispose()


def _wait_for_assets(webserver: Webserver, name: str) -> list[list[str]]:
    for _ in range(240):
        try:
            if keys := webserver.asset_keys(name):
                return keys
        except BackfillError:
            pass
        time.sleep(0.5)
    raise BackfillError(f"The server shows no assets of {name} after two minutes.")


def _expected_rows(pipeline: Pipeline, quarter: Quarter, series: int) -> int:
    """Rows that the definition calls for, counted from the calendar alone.

    Every target of the quarter, from every cutoff whose day is a multiple of the step since Monday,
    2001-01-01, by every model and series, as far as the pipeline's end lets a cutoff see its horizon.
    """
    step = pd.tseries.frequencies.to_offset(pipeline.frequency)
    unit = pd.Timedelta(1, unit="h") if pipeline.frequency == "h" else pd.Timedelta(days=1)
    end = pd.Timestamp(pipeline.end) + pd.Timedelta(days=1) - unit
    hours = pd.date_range(
        pd.Timestamp(quarter.start) - pipeline.horizon * unit, quarter.end, freq=step
    )
    since = (hours - pd.Timestamp("2001-01-01")) // unit + 1
    cutoffs = hours[(since % pipeline.step == 0) & (hours + pipeline.horizon * unit <= end)]
    count = 0
    for cutoff in cutoffs:
        targets = pd.date_range(cutoff + unit, periods=pipeline.horizon, freq=step)
        count += int(((targets >= quarter.start) & (targets < quarter.end)).sum())
    return count * series * len(pipeline.models)


def _print_accuracy(
    engine: Engine, pipeline: Pipeline, quarters: list[Quarter], published: Path | None
) -> None:
    table = Table(title=f"{pipeline.name}: mean absolute error")
    models = [model.name for model in pipeline.models]
    others = ["DNN ensemble", "LEAR ensemble"] if published is not None else []
    for heading in ("quarter", "rows", "defined", *models, *others):
        table.add_column(heading, justify="right")
    sql = text(
        "SELECT model_name, unique_id, prediction_date, predicted_value, actual_value "
        "FROM predictions JOIN models USING (model_id) JOIN experiments USING (experiment_id) "
        "WHERE experiment_name = :name AND prediction_date >= :start AND prediction_date < :end"
    )
    for quarter in quarters:
        with engine.connect() as connection:
            bounds = {"name": pipeline.name, "start": quarter.start, "end": quarter.end}
            rows = pd.DataFrame(connection.execute(sql, bounds).mappings())
        error = (rows["predicted_value"] - rows["actual_value"]).abs()
        by_model = error.groupby(rows["model_name"]).mean()
        expected = _expected_rows(pipeline, quarter, rows["unique_id"].nunique())
        cells = [quarter.label, f"{len(rows):,}", f"{expected:,}"]
        cells += [f"{by_model[model]:.3f}" for model in models]
        if published is not None:
            reference = _published_errors(published, rows)
            cells += [f"{reference[name.split()[0]]:.3f}" for name in others]
        table.add_row(*cells)
    console.print(table)


def _published_errors(data: Path, rows: pd.DataFrame) -> dict[str, float]:
    """Mean absolute error of the published ensembles over the hours of ``rows``."""
    forecasts = pd.read_csv(data / _PUBLISHED, index_col=0, parse_dates=True)
    actual = rows.drop_duplicates("prediction_date").set_index("prediction_date")["actual_value"]
    hours = forecasts.index.intersection(actual.index)
    return {
        kind: float((forecasts.loc[hours, f"{kind} Ensemble"] - actual.loc[hours]).abs().mean())
        for kind in ("DNN", "LEAR")
    }


def _end(server: "subprocess.Popen[bytes]") -> None:
    tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    server.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(tree, timeout=30)
    for survivor in alive:
        survivor.kill()


if __name__ == "__main__":
    typer.run(main)
