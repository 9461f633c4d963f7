"""What the product promises of a whole pipeline: no leakage, nothing twice, every row accounted for."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine, text

from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.errors import SourceError
from ts_forecast.evaluation.quarter import score_quarter
from ts_forecast.predictions.quarter import forecast_quarter
from ts_forecast.predictions.slice import read_slice
from ts_forecast.quarters import Quarter
from ts_forecast.training.quarter import train_quarter

QUARTER = Quarter(2023, 2)


def materialize(problem, engine: Engine, quarter: Quarter = QUARTER) -> dict[str, object]:
    """All five steps for one quarter; what each trained model was."""
    pipeline, config = problem.pipeline, problem.settings
    ingest_quarters(engine, config, pipeline, [*pipeline.window(quarter), quarter])
    trained = {
        spec.name: train_quarter(engine, config, pipeline, spec, quarter)
        for spec in pipeline.models
    }
    forecast_quarter(engine, config, pipeline, quarter)
    score_quarter(engine, config, pipeline, quarter)
    return trained


def forecasts(problem, engine: Engine, quarter: Quarter = QUARTER) -> pd.DataFrame:
    """The slice, one row a forecast, with its cutoff, in a fixed order."""
    with engine.connect() as connection:
        experiment = connection.execute(text("SELECT experiment_id FROM experiments")).scalar_one()
        names = dict(connection.execute(text("SELECT model_id, model_name FROM models")).all())
    rows = read_slice(engine, experiment_id=experiment, quarter=quarter).to_pandas()
    rows["model"] = rows["model_id"].map(names)
    rows["cutoff"] = rows["prediction_date"] - pd.to_timedelta(rows["horizon"], unit="D")
    keys = ["model", "unique_id", "cutoff", "horizon"]
    values = ["predicted_value", "lower_bound", "upper_bound", "actual_value"]
    return rows.sort_values(keys).set_index(keys)[values]


def model_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every stored model file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files}


def counts(engine: Engine) -> dict[str, int]:
    """Rows of every table of the main job."""
    tables = (
        "experiments runs models model_registry datasets dataset_features metrics "
        "metric_summaries hyperparameters artifacts predictions"
    ).split()
    with engine.connect() as connection:
        return {
            t: connection.execute(text(f"SELECT count(*) FROM {t}")).scalar_one() for t in tables
        }


def test_slice__every_target_once_for_each_cutoff_that_reaches_it(problem, engine: Engine) -> None:
    materialize(problem, engine)

    found = forecasts(problem, engine)

    # Written independently of the product: Sundays as cutoffs, two weeks ahead, targets in Q2.
    expected = {
        (model, unique_id, cutoff, ahead)
        for model in ("NHITS", "MLP", "SeasonalNaive")
        for unique_id in ("north", "south", "west")
        for cutoff in pd.date_range("2023-03-01", "2023-06-30", freq="W-SUN")
        for ahead in range(1, 15)
        if pd.Timestamp("2023-04-01")
        <= cutoff + pd.Timedelta(days=ahead)
        < pd.Timestamp("2023-07-01")
    }
    assert set(found.index) == expected
    assert len(found) == len(expected)
    gap = found.query("unique_id == 'south'").reset_index()
    target = gap["cutoff"] + pd.to_timedelta(gap["horizon"], unit="D")
    assert (gap["actual_value"].isna() == target.between("2023-05-12", "2023-05-16")).all()


def test_models__everything_from_the_quarter_on_changed__do_not_move(
    problem, engine: Engine
) -> None:
    before = materialize(problem, engine)
    files = model_files(problem.settings.model_dir)
    future = problem.frame.copy()
    is_later = pd.to_datetime(future["ds"]) >= pd.Timestamp(QUARTER.start)
    future.loc[is_later, "y"] = future.loc[is_later, "y"] * -100 + 12345
    future.loc[is_later, "promotion"] = 1 - future.loc[is_later, "promotion"]
    problem.write(future)

    after = materialize(problem, engine)

    assert {n: o.fingerprint for n, o in after.items()} == {
        n: o.fingerprint for n, o in before.items()
    }
    assert all(outcome.reused for outcome in after.values())
    assert model_files(problem.settings.model_dir) == files


def test_models__refitted_on_a_changed_future__have_the_same_weights(
    problem, engine: Engine
) -> None:
    """The same as above without trusting the fingerprint: the fit is really repeated."""
    materialize(problem, engine)
    files = model_files(problem.settings.model_dir)
    future = problem.frame.copy()
    is_later = pd.to_datetime(future["ds"]) >= pd.Timestamp(QUARTER.start)
    future.loc[is_later, "y"] += 5000
    problem.write(future)
    pipeline, config = problem.pipeline, problem.settings
    ingest_quarters(engine, config, pipeline, [*pipeline.window(QUARTER), QUARTER])

    for spec in pipeline.models:
        outcome = train_quarter(engine, config, pipeline, spec, QUARTER, force=True)
        assert not outcome.reused

    weights = {k: v for k, v in files.items() if k.endswith(".safetensors")}
    again = model_files(config.model_dir)
    assert weights
    assert set(weights.values()) <= set(again.values())
    assert {v for k, v in again.items() if k.endswith(".safetensors")} == set(weights.values())


@pytest.mark.parametrize("cutoff", ["2023-04-16", "2023-05-14"])
def test_forecasts__values_after_a_cutoff_changed__do_not_move(
    problem, engine: Engine, cutoff: str
) -> None:
    """14 May lies in the gap of the series ``south``: interpolation must not look past it."""
    materialize(problem, engine)
    before = forecasts(problem, engine)
    future = problem.frame.copy()
    future.loc[pd.to_datetime(future["ds"]) > cutoff, "y"] += 777
    problem.write(future)

    materialize(problem, engine)
    after = forecasts(problem, engine)

    values = ["predicted_value", "lower_bound", "upper_bound"]
    known = before.index.get_level_values("cutoff") <= pd.Timestamp(cutoff)
    pd.testing.assert_frame_equal(before.loc[known, values], after.loc[known, values])
    assert not before.loc[~known, values].equals(after.loc[~known, values])


def test_materialize__twice__same_rows_same_files_no_training(problem, engine: Engine) -> None:
    materialize(problem, engine)
    rows, slice_before = counts(engine), forecasts(problem, engine)
    files = model_files(problem.folder)

    second = materialize(problem, engine)

    assert all(outcome.reused for outcome in second.values())
    assert counts(engine) == rows
    assert model_files(problem.folder) == files
    pd.testing.assert_frame_equal(slice_before, forecasts(problem, engine))


def test_materialize__bad_input__leaves_nothing_behind(problem, engine: Engine) -> None:
    bad = problem.frame.astype({"y": object})
    bad.loc[17, "y"] = "many"
    problem.write(bad)

    with pytest.raises(SourceError, match=r"shop\.csv.*19.*y"):
        ingest_quarters(engine, problem.settings, problem.pipeline, [QUARTER])

    assert counts(engine)["datasets"] == 0
    assert not list((problem.settings.data_dir / "processed").rglob("*.parquet"))


def test_forecasts__fitted_again__are_equal(
    make_problem: Callable[..., object], engine: Engine
) -> None:
    """Determinism with exogenous columns: forced repetition gives the same forecasts."""
    problem = make_problem()
    materialize(problem, engine)
    before = forecasts(problem, engine)
    for spec in problem.pipeline.models:
        train_quarter(engine, problem.settings, problem.pipeline, spec, QUARTER, force=True)
    forecast_quarter(engine, problem.settings, problem.pipeline, QUARTER, force=True)

    values = ["predicted_value", "lower_bound", "upper_bound"]
    pd.testing.assert_frame_equal(before[values], forecasts(problem, engine)[values])
