"""A quarter's model: fitted once for each fingerprint, on record whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, create_engine, func, select

from tests.end_to_end.problems import TINY
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db.engine import transaction
from ts_forecast.errors import DatasetError, TrainingError
from ts_forecast.quarters import Quarter
from ts_forecast.registry.artifacts import verify
from ts_forecast.tables.evaluation import Metric
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.registry import Artifact, RegisteredModel
from ts_forecast.tables.training import Hyperparameter, Model
from ts_forecast.training import quarter as training
from ts_forecast.training.options import FitProgress
from ts_forecast.training.progress import CurveStream, loss_curves
from ts_forecast.training.quarter import train_quarter, trained_model

QUARTER = Quarter(2023, 2)


def ingest(problem: Any, engine: Engine, quarter: Quarter = QUARTER) -> None:
    pipeline = problem.pipeline
    ingest_quarters(engine, problem.settings, pipeline, [*pipeline.window(quarter), quarter])


def train(problem: Any, engine: Engine, name: str = "NHITS", **options: Any) -> Any:
    pipeline = problem.pipeline
    return train_quarter(
        engine, problem.settings, pipeline, pipeline.model(name), QUARTER, **options
    )


def refuse(*arguments: Any) -> None:
    raise AssertionError("it was fitted again")


def test_train_quarter__neural__everything_of_the_run_is_on_record(
    problem: Any, engine: Engine
) -> None:
    ingest(problem, engine)

    outcome = train(problem, engine)

    with transaction(engine) as session:
        run = session.get_one(Run, outcome.run_id)
        model = session.scalars(select(Model)).one()
        artifact = session.scalars(select(Artifact)).one()
        parameters = session.scalars(select(Hyperparameter)).all()
        assert (run.status, run.run_fingerprint) == ("completed", outcome.fingerprint)
        assert (model.model_type, model.framework) == ("NHITS", "neuralforecast")
        assert model.framework_version == version("neuralforecast")
        assert model.quarter_start == QUARTER.start.date()
        assert model.training_samples == outcome.samples > 0
        assert float(model.training_duration_seconds) > 0
        assert model.model_config["quantiles"] == list(problem.pipeline.quantiles)
        assert verify(Path(outcome.path), artifact.file_hash).path == Path(outcome.path)
        named = {row.param_key for row in parameters}
        assert {"model", "max_steps", "input_size", "horizon", "seed"} <= named
        assert session.scalars(select(RegisteredModel)).one().model_id == model.model_id
        curves = loss_curves(session, outcome.run_id)
    assert set(curves["name"]) == {"train_loss"}
    assert curves["step"].tolist() == list(range(TINY["max_steps"]))
    assert curves["value"].iloc[-1] == pytest.approx(outcome.final_loss)
    assert outcome.fit_until < pd.Timestamp(QUARTER.start)


def test_train_quarter__statistical__is_on_record_without_curves(
    problem: Any, engine: Engine
) -> None:
    ingest(problem, engine)

    outcome = train(problem, engine, "SeasonalNaive")

    assert outcome.final_loss is None
    with transaction(engine) as session:
        assert session.scalars(select(Model)).one().framework == "statsforecast"
        assert session.scalar(select(func.count()).select_from(Metric)) == 0


def test_train_quarter__twice__is_fitted_once(
    problem: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(problem, engine)
    first = train(problem, engine)
    monkeypatch.setattr(training, "fit_model", refuse)

    second = train(problem, engine)

    assert second.reused
    assert (second.model_id, second.run_id, second.path) == (
        first.model_id,
        first.run_id,
        first.path,
    )


def test_train_quarter__force__another_run_with_the_same_file(problem: Any, engine: Engine) -> None:
    ingest(problem, engine)
    first = train(problem, engine)

    second = train(problem, engine, force=True)

    assert not second.reused
    assert second.run_id != first.run_id
    assert second.path == first.path
    with transaction(engine) as session:
        experiment = session.get_one(Run, second.run_id).experiment_id
        current = trained_model(session, experiment, "NHITS", QUARTER)
        assert current is not None
        assert current.model_id == second.model_id


@pytest.mark.parametrize("change", [{"seed": 8}, {"horizon": 7}, {"levels": [90]}])
def test_train_quarter__another_definition__another_model(
    make_problem: Callable[..., Any], engine: Engine, change: dict[str, Any]
) -> None:
    problem = make_problem()
    ingest(problem, engine)
    first = train(problem, engine)

    second = train(make_problem(**change), engine)

    assert not second.reused
    assert second.fingerprint != first.fingerprint


def test_train_quarter__fit_fails__a_failed_run_and_nothing_else(
    make_problem: Callable[..., Any], engine: Engine
) -> None:
    wrong = {"model": "NHITS", "parameters": {**TINY, "scaler_type": "wrong"}}
    problem = make_problem(models=[wrong])
    ingest(problem, engine)

    with pytest.raises(TrainingError, match="Pipeline shop, model NHITS: NHITS refuses"):
        train(problem, engine)

    with transaction(engine) as session:
        run = session.scalars(select(Run)).one()
        assert run.status == "failed"
        assert "refuses its parameters" in run.error_message
        assert session.scalars(select(Model)).all() == []
    folder = problem.settings.model_dir
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_train_quarter__no_dataset__names_the_remedy(problem: Any, engine: Engine) -> None:
    with pytest.raises(DatasetError, match="Materialize shop/datasets"):
        train(problem, engine)


def test_train_quarter__first_quarter__has_no_history(problem: Any, engine: Engine) -> None:
    pipeline = problem.pipeline

    with pytest.raises(DatasetError, match="2022-Q1 is its first quarter; there is no history"):
        train_quarter(
            engine, problem.settings, pipeline, pipeline.models[0], pipeline.first_quarter
        )


def test_train_quarter__files_gone__says_so(problem: Any, engine: Engine) -> None:
    ingest(problem, engine)
    outcome = train(problem, engine, "SeasonalNaive")
    for file in Path(outcome.path).iterdir():
        file.unlink()
    Path(outcome.path).rmdir()

    with pytest.raises(TrainingError, match="its files are gone"):
        train(problem, engine, "SeasonalNaive")


def test_training_fingerprint__computing_it__needs_no_torch() -> None:
    code = (
        "import sys, ts_forecast.training.quarter, ts_forecast.predictions.quarter;"
        "print([name for name in ('torch', 'neuralforecast', 'statsforecast', 'numba')"
        " if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "[]"


def curve_rows(engine: Engine) -> list[tuple[str, int, bool]]:
    with transaction(engine) as session:
        rows = session.scalars(select(Metric).order_by(Metric.metric_name, Metric.metric_step))
        return [(row.metric_name, row.metric_step, row.model_id is None) for row in rows]


def test_train_quarter__while_it_runs__its_curve_grows_and_is_there_once_at_the_end(
    problem: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(problem, engine)
    really, seen, told = training.fit_model, [], []

    def at_every_step(*arguments: Any) -> Any:
        return really(*arguments[:-1], replace(arguments[-1], report_seconds=0))

    def tell(progress: FitProgress) -> None:
        told.append(progress.step)
        seen.append(curve_rows(engine))

    monkeypatch.setattr(training, "fit_model", at_every_step)

    train(problem, engine, tell=tell)

    assert told == [1, 2, 3, 3]
    assert seen[1] == [("train_loss", 0, True), ("train_loss", 1, True)]
    assert curve_rows(engine) == [("train_loss", step, False) for step in range(3)]


def test_train_quarter__killed__the_next_attempt_resumes_and_removes_the_checkpoint(
    problem: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(problem, engine)
    really = training.fit_model

    def often(*arguments: Any) -> Any:
        options = replace(arguments[-1], report_seconds=0, checkpoint_seconds=0)
        return really(*arguments[:-1], options)

    def stop(progress: FitProgress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit_model", often)
    with pytest.raises(KeyboardInterrupt):
        train(problem, engine, tell=stop)
    assert len(list((problem.settings.home / "fits").glob("*/*/fit.ckpt"))) == 1

    outcome = train(problem, engine)

    with transaction(engine) as session:
        model = session.scalars(select(Model)).one()
        parameters = session.scalars(
            select(Hyperparameter).where(Hyperparameter.param_category == "fit")
        ).all()
        assert model.metadata_["fit"]["resumed_at"] == 1
        assert model.metadata_["fit"]["precision"] == "32-true"
        assert {row.param_key for row in parameters} == {
            "fit.precision", "fit.batch_sizes", "fit.halvings", "fit.resumed_at",
        }  # fmt: skip
        curves = loss_curves(session, outcome.run_id)
    assert curves["step"].tolist() == [0, 1, 2]
    assert not list((problem.settings.home / "fits").glob("*/*"))
    # What the resumed fit gives is what a whole one gives.
    again = train(problem, engine, force=True)
    assert again.path == outcome.path


def test_curve_stream__database_away__waits_and_does_not_end_the_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    told: list[FitProgress] = []
    stream = CurveStream(nowhere, 1, told.append)

    stream(FitProgress(1, 2, (("train_loss", 0, 0.5),), 1.0))

    assert [progress.loss for progress in told] == [0.5]
    assert "The loss curve waits" in caplog.text
    nowhere.dispose()
