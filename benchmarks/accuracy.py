"""Walk forward over the published test years of three electricity markets; print MAE and rMAE.

``python -m benchmarks.accuracy --data FOLDER`` takes the pipeline of
``benchmarks/pipelines/day_ahead_prices.yaml`` to NP, PJM and BE: quarterly models, forecasts from every
midnight, ensembles and champions from past quarters alone, all of it by the functions that the assets
call, in a database of its own. Beside them stand the published LEAR and DNN ensembles of Lago et al.
(2021) over the same hours, which are re-estimated every day. Fits are independent of each other and
run side by side, one thread each.
"""

from __future__ import annotations

import os

# Read by torch and BLAS when they are loaded, here and in the processes below.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import shutil
import tempfile
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import text

from resources.forkserver_process import die_with_parent
from ts_forecast.cores import usable_cores
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db import migrate
from ts_forecast.db.database import Database, open_database
from ts_forecast.db.embedded import stop_embedded
from ts_forecast.db.retry import in_transaction
from ts_forecast.evaluation.calibration import calibrate
from ts_forecast.evaluation.champion import choose_champion
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.quarters import Quarter, quarter_range
from ts_forecast.settings import Settings
from ts_forecast.tracking.fingerprint import library_versions
from ts_forecast.training.ensemble import train_ensemble
from ts_forecast.training.quarter import train_quarter

_TEMPLATE = Path(__file__).parent / "pipelines" / "day_ahead_prices.yaml"
_LIBRARIES = ("lightgbm", "mlforecast", "neuralforecast", "numpy", "scikit-learn", "torch")
# Nine quarters stand side by side, in a file or a narrow window too.
_WIDTH = 140
console = Console(width=max(Console().width, _WIDTH))


@dataclass(frozen=True)
class Market:
    """What differs between the markets: their columns, and which hours were published.

    Attributes:
        warm_up: the quarter before the first that is tested; ensembles and champions learn from it.
    """

    target: str
    future: tuple[str, str]
    start: str
    end: str
    time_format: str | None
    warm_up: Quarter
    last: Quarter


MARKETS = {
    "NP": Market(
        "Price", ("Grid load forecast", "Wind power forecast"),
        "2013-01-01", "2018-12-24", None, Quarter(2016, 3), Quarter(2018, 4),
    ),
    "PJM": Market(
        "Zonal COMED price", ("System load forecast", "Zonal COMED load foecast"),
        "2013-01-01", "2018-12-24", "%Y/%m/%d %H:%M", Quarter(2016, 3), Quarter(2018, 4),
    ),
    "BE": Market(
        "Prices", ("Generation forecast", "System load forecast"),
        "2011-01-09", "2016-12-31", "%Y/%m/%d %H:%M", Quarter(2014, 4), Quarter(2016, 4),
    ),
}  # fmt: skip


def main(
    data: Annotated[Path, typer.Option(help="The folder of the markets' files.", exists=True)],
    markets: Annotated[str, typer.Option(help="Some of them, with commas.")] = ",".join(MARKETS),
    quarters: Annotated[
        int, typer.Option(min=1, help="Quarters of the test years, from the first; default: all.")
    ] = 99,
    models: Annotated[
        str, typer.Option(help="Some of the pipeline's fitted models, with commas; default: all.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Fits side by side.")] = usable_cores(),
    folder: Annotated[
        Path | None, typer.Option(help="Where it lives, to go on later; default: a temporary one.")
    ] = None,
    pipeline: Annotated[
        Path, typer.Option(help="Another pipeline file to take to the markets.", exists=True)
    ] = _TEMPLATE,
) -> None:
    """Fit, forecast and score, then print a table a market."""
    place = folder or Path(tempfile.mkdtemp(prefix="ts-forecast-accuracy-"))
    settings = _settings(place)
    pipelines = {
        name: _pipeline(name, pipeline, [m for m in models.split(",") if m])
        for name in markets.split(",")
    }
    begun = time.monotonic()
    database = open_database(settings)
    try:
        migrate.upgrade(database.engine)
        plans = {name: _plan(MARKETS[name], quarters) for name in pipelines}
        for name, own in pipelines.items():
            source = data / f"{name}.csv"
            (settings.data_dir / "raw").mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, settings.data_dir / "raw" / source.name)
            window = [*own.window(plans[name][0]), *plans[name]]
            ingest_quarters(database.engine, settings, own, window)
        _compute(
            settings.model_copy(update={"database_url": database.url}), pipelines, plans, workers
        )
        console.print(
            f"{sum(map(len, plans.values()))} quarters of {', '.join(pipelines)} in "
            f"{(time.monotonic() - begun) / 60:.1f} min, {workers} workers, load "
            f"{os.getloadavg()[2]:.1f}; "
            + ", ".join(f"{k} {v}" for k, v in library_versions(*_LIBRARIES).items())
        )
        for name, own in pipelines.items():
            console.print(_table(name, _errors(database, own, data, name)))
    finally:
        database.dispose()
        stop_embedded(settings)
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def _settings(place: Path) -> Settings:
    return Settings(
        _env_file=None,
        home=place / "home",
        data_dir=place / "data",
        model_dir=place / "models",
        output_dir=place / "outputs",
        log_dir=place / "logs",
    )


def _pipeline(name: str, template: Path, models: list[str]) -> Pipeline:
    """The template with a market's own columns, and with some of its models."""
    if name not in MARKETS:
        raise typer.BadParameter(f"no market is called {name!r}; there are {', '.join(MARKETS)}")
    market = MARKETS[name]
    content: dict[str, Any] = yaml.safe_load(template.read_text(encoding="utf-8"))
    source = {**content["source"], "files": f"raw/{name}.csv", "series_name": name}
    source |= {"target_column": market.target, "time_format": market.time_format}
    whole = parse_pipeline(
        {
            **content,
            "name": f"day_ahead_{name.lower()}",
            "source": source,
            "start": market.start,
            "end": market.end,
            "exogenous": {**content["exogenous"], "future": list(market.future)},
        },
        origin=str(template),
    )
    wanted = {*models, whole.baseline} if models else {spec.name for spec in whole.models}
    kept = [spec for spec in whole.models if spec.name in wanted]
    if models:
        # Ensembles of what is left, where that is two models at least.
        for spec in whole.models:
            members = tuple(member for member in spec.of if member in wanted)
            if len(members) > 1:
                kept.append(spec.model_copy(update={"of": members}))
    return whole.model_copy(update={"models": tuple(kept)})


def _plan(market: Market, quarters: int) -> list[Quarter]:
    return list(quarter_range(market.warm_up, market.last))[: quarters + 1]


def _compute(
    settings: Settings,
    pipelines: dict[str, Pipeline],
    plans: dict[str, list[Quarter]],
    workers: int,
) -> None:
    """Fit and forecast every quarter side by side, then score each market's quarters in order."""
    fits = [
        (pipelines[name], spec.name, quarter)
        for spec in next(iter(pipelines.values())).models
        if spec.ensemble is None
        for name, plan in plans.items()
        for quarter in plan
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            # Else they would go on with their fits when this process is killed.
            initializer=die_with_parent,
            initargs=(os.getpid(),),
        ) as pool,
        Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress,
    ):
        _follow(progress, "fits", [pool.submit(_fit, settings, *fit) for fit in fits])
        slices = [(pipelines[name], quarter) for name, plan in plans.items() for quarter in plan]
        _follow(progress, "forecasts", [pool.submit(_forecast, settings, *one) for one in slices])
        walks = [pool.submit(_walk, settings, pipelines[name], plans[name]) for name in plans]
        _follow(progress, "markets", walks)


def _follow(progress: Progress, title: str, jobs: list[Future[None]]) -> None:
    task = progress.add_task(title, total=len(jobs))
    try:
        for job in as_completed(jobs):
            job.result()
            progress.advance(task)
    except BaseException:
        # A failure or Ctrl-C: what has begun ends, the rest waits for the next time.
        for job in jobs:
            job.cancel()
        raise


def _fit(settings: Settings, pipeline: Pipeline, name: str, quarter: Quarter) -> None:
    warnings.simplefilter("ignore")
    database = open_database(settings)
    try:
        spec = pipeline.model(name)
        train_quarter(database.engine, settings, pipeline, spec, quarter, calibrate=calibrate)
    finally:
        database.dispose()


def _forecast(settings: Settings, pipeline: Pipeline, quarter: Quarter) -> None:
    warnings.simplefilter("ignore")
    database = open_database(settings)
    try:
        for spec in pipeline.models:
            if spec.ensemble is not None:
                train_ensemble(database.engine, settings, pipeline, spec, quarter)
        forecast_quarter(database.engine, settings, pipeline, quarter)
    finally:
        database.dispose()


def _walk(settings: Settings, pipeline: Pipeline, quarters: list[Quarter]) -> None:
    """Quarter after quarter: the champion of one has seen the scores of those before it alone."""
    warnings.simplefilter("ignore")
    database = open_database(settings)
    engine = database.engine
    try:
        for quarter in quarters:
            in_transaction(engine, lambda session, q=quarter: choose_champion(session, pipeline, q))
            score_quarter(engine, settings, pipeline, quarter)
    finally:
        database.dispose()


def _errors(database: Database, pipeline: Pipeline, data: Path, name: str) -> pd.DataFrame:
    """Absolute errors of the published hours that were forecast: a row an hour, a column a model."""
    published = pd.read_csv(
        data / f"Forecasts_{name}_DNN_LEAR_ensembles.csv", index_col=0, parse_dates=True
    )
    every = (
        "SELECT prediction_date AS ds, model_name AS model, predicted_value, actual_value "
        "FROM predictions JOIN models USING (model_id) JOIN experiments USING (experiment_id) "
        "WHERE experiment_name = :name"
    )
    champion = (
        "SELECT prediction_date AS ds, 'champion' AS model, predicted_value, actual_value "
        "FROM v_champion_forecasts WHERE experiment_name = :name"
    )
    with database.engine.connect() as connection:
        rows = pd.DataFrame(
            connection.execute(
                text(f"{every} UNION ALL {champion}"), {"name": pipeline.name}
            ).mappings()
        )
    rows["error"] = (rows["predicted_value"] - rows["actual_value"]).abs()
    errors = rows.pivot(index="ds", columns="model", values="error")
    actual = rows.drop_duplicates("ds").set_index("ds")["actual_value"]
    errors = errors[errors.index.isin(published.index)]
    for kind in ("LEAR", "DNN"):
        theirs = published.loc[errors.index, f"{kind} Ensemble"]
        errors[f"published {kind} ensemble"] = (theirs - actual.loc[errors.index]).abs()
    ours = [spec.name for spec in pipeline.models]
    return errors[[*ours, "champion", *[c for c in errors if c.startswith("published")]]]


def _table(name: str, errors: pd.DataFrame) -> Table:
    table = Table(
        title=f"{name}: {errors.index.min():%Y-%m-%d} to {errors.index.max():%Y-%m-%d}, "
        f"{len(errors):,} hours"
    )
    naive = errors["SeasonalNaive"].mean()
    by_quarter = errors.groupby(errors.index.to_period("Q")).mean()
    for heading in ("model", "MAE", "rMAE", *map(str, by_quarter.index)):
        table.add_column(heading, justify="right")
    for model, mean in errors.mean().items():
        cells = [f"{value:.3f}" for value in by_quarter[model]]
        hours = "" if errors[model].notna().all() else f" ({errors[model].notna().sum():,} h)"
        table.add_row(f"{model}{hours}", f"{mean:.3f}", f"{mean / naive:.3f}", *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
