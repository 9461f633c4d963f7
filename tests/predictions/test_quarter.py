"""A quarter's slice: made once, of every model, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, select, text

from tests.end_to_end.problems import TINY
from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db.engine import transaction
from ts_forecast.errors import ArtifactError, PredictionError
from ts_forecast.evaluation.calibration import calibrate
from ts_forecast.predictions import quarter as predictions
from ts_forecast.predictions.quarter import ForecastOutcome, forecast_quarter, slice_is_current
from ts_forecast.predictions.slice import read_slice
from ts_forecast.quarters import Quarter
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.training.quarter import train_quarter

QUARTER = Quarter(2023, 2)
MODELS: list[Any] = [{"model": "MLP", "parameters": {**TINY, "hidden_size": 16}}, "SeasonalNaive"]


@pytest.fixture
def shop(make_problem: Callable[..., Any]) -> Any:
    return make_problem(models=MODELS, levels=[80, 50])


def prepare(problem: Any, engine: Engine) -> None:
    pipeline, settings = problem.pipeline, problem.settings
    ingest_quarters(engine, settings, pipeline, [*pipeline.window(QUARTER), QUARTER])
    for spec in pipeline.models:
        train_quarter(engine, settings, pipeline, spec, QUARTER, calibrate=calibrate)


def forecast(problem: Any, engine: Engine, **options: Any) -> ForecastOutcome:
    return forecast_quarter(engine, problem.settings, problem.pipeline, QUARTER, **options)


def rows_of(engine: Engine, outcome: ForecastOutcome) -> pd.DataFrame:
    table = read_slice(engine, experiment_id=outcome.experiment_id, quarter=QUARTER)
    return table.to_pandas()


def refuse(*arguments: Any) -> None:
    raise AssertionError("something was forecast again")


def test_forecast_quarter__rows__carry_quantiles_bounds_and_actuals(
    shop: Any, engine: Engine
) -> None:
    prepare(shop, engine)

    outcome = forecast(shop, engine)

    rows = rows_of(engine, outcome)
    assert len(rows) == outcome.rows
    assert (outcome.series, outcome.reused, outcome.changed) == (3, False, True)
    quantiles = np.stack(rows["quantiles"].tolist())
    assert quantiles.shape[1] == 5
    assert (np.diff(quantiles, axis=1) >= 0).all()
    # The first level is 80 %: the outermost of five quantiles; the point forecast is the median.
    np.testing.assert_array_equal(rows["lower_bound"], quantiles[:, 0])
    np.testing.assert_array_equal(rows["predicted_value"], quantiles[:, 2])
    np.testing.assert_array_equal(rows["upper_bound"], quantiles[:, 4])
    assert (rows["confidence_level"] == 0.8).all()
    truth = shop.frame.assign(ds=pd.to_datetime(shop.frame["ds"])).set_index(["unique_id", "ds"])
    seen = rows.dropna(subset="actual_value")
    keys = pd.MultiIndex.from_frame(seen[["unique_id", "prediction_date"]])
    np.testing.assert_allclose(seen["actual_value"], truth["y"].loc[keys])


def test_forecast_quarter__twice__nothing_is_forecast_again(
    shop: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(shop, engine)
    first = forecast(shop, engine)
    with transaction(engine) as session:
        assert slice_is_current(session, shop.pipeline, QUARTER)
    monkeypatch.setattr(predictions, "forecast_pairs", refuse)

    second = forecast(shop, engine)

    assert (second.reused, second.changed) == (True, False)
    assert (second.run_id, second.content_hash) == (first.run_id, first.content_hash)


def test_forecast_quarter__force__same_content_is_not_written_again(
    shop: Any, engine: Engine
) -> None:
    prepare(shop, engine)
    first = forecast(shop, engine)

    second = forecast(shop, engine, force=True)

    assert not second.reused
    assert second.run_id != first.run_id
    assert second.rows == first.rows


def test_forecast_quarter__an_actual_restated__is_forecast_anew(shop: Any, engine: Engine) -> None:
    prepare(shop, engine)
    first = forecast(shop, engine)
    restated = shop.frame.copy()
    is_last = (restated["ds"] == "2023-06-30") & (restated["unique_id"] == "north")
    restated.loc[is_last, "y"] = 4321.0
    shop.write(restated)
    prepare(shop, engine)

    second = forecast(shop, engine)

    assert (second.reused, second.changed) == (False, True)
    rows = rows_of(engine, second).query("unique_id == 'north'")
    last = rows[rows["prediction_date"] == "2023-06-30"]
    assert (last["actual_value"] == 4321.0).all()
    with transaction(engine) as session:
        assert session.get_one(Run, first.run_id).deleted_at is not None


def test_forecast_quarter__a_model_was_not_trained__names_it_and_the_remedy(
    shop: Any, engine: Engine
) -> None:
    pipeline = shop.pipeline
    ingest_quarters(engine, shop.settings, pipeline, [*pipeline.window(QUARTER), QUARTER])
    train_quarter(engine, shop.settings, pipeline, pipeline.models[0], QUARTER)

    with pytest.raises(
        PredictionError, match="the model SeasonalNaive was never trained.*Material"
    ):
        forecast(shop, engine)


def test_forecast_quarter__a_model_file_was_touched__refuses(shop: Any, engine: Engine) -> None:
    prepare(shop, engine)
    file = next(shop.settings.model_dir.rglob("model.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(ArtifactError, match="is not what was stored"):
        forecast(shop, engine)

    with transaction(engine) as session:
        run = session.scalars(select(Run).where(Run.tags["kind"].astext == "predict")).one()
        assert run.status == "failed"
        assert session.execute(text("SELECT count(*) FROM predictions")).scalar_one() == 0


def test_forecast_quarter__promotions_unknown_ahead__says_until_when(
    shop: Any, engine: Engine
) -> None:
    early = shop.frame[pd.to_datetime(shop.frame["ds"]) <= "2023-04-02"]
    shop.write(early)
    pipeline = shop.pipeline
    ingest_quarters(engine, shop.settings, pipeline, [*pipeline.window(QUARTER), QUARTER])
    for spec in pipeline.models:
        train_quarter(engine, shop.settings, pipeline, spec, QUARTER)

    outcome = forecast(shop, engine)

    # Promotions are known up to 2 April: only the cutoff two weeks before is issued.
    rows = rows_of(engine, outcome)
    assert rows["prediction_date"].max() <= pd.Timestamp("2023-04-02")
    assert outcome.cutoffs == 1


def test_forecast_quarter__no_pair_can_be_issued__says_why(
    make_problem: Callable[..., Any], engine: Engine
) -> None:
    problem = make_problem(models=["SeasonalNaive"], min_history=2000)
    prepare(problem, engine)

    with pytest.raises(
        PredictionError, match="no forecast can be issued: .* needs 2000 observations"
    ):
        forecast(problem, engine)


def test_forecast_quarter__a_model_without_intervals__has_no_bounds_unless_calibrated(
    make_problem: Callable[..., Any], engine: Engine
) -> None:
    bounds = ["lower_bound", "upper_bound", "confidence_level", "quantiles"]
    problem = make_problem(models=["CrostonOptimized"], levels=[80], intervals="model")
    prepare(problem, engine)
    plain = rows_of(engine, forecast(problem, engine))
    assert plain["predicted_value"].notna().all()
    assert plain[bounds].isna().all(axis=None)

    problem = make_problem(models=["CrostonOptimized"], levels=[80])
    prepare(problem, engine)
    with transaction(engine) as session:
        model = session.scalars(select(Model).order_by(Model.model_id.desc())).first()
        assert model is not None
        assert (model.metadata_ or {})["calibration"]["scores"] > 100
    outcome = forecast(problem, engine)
    rows = rows_of(engine, outcome)

    np.testing.assert_array_equal(rows["predicted_value"], plain["predicted_value"])
    assert rows[bounds].notna().all(axis=None)
    seen = rows.dropna(subset="actual_value")
    assert (
        0.6 < seen["actual_value"].between(seen["lower_bound"], seen["upper_bound"]).mean() < 0.97
    )
    # Again, and after a later restatement: nothing moves.
    with transaction(engine) as session:
        assert slice_is_current(session, problem.pipeline, QUARTER)
    later = problem.frame.copy()
    later.loc[later["ds"] >= "2023-04-01", "y"] += 500
    problem.write(later)
    prepare(problem, engine)
    moved = rows_of(engine, forecast(problem, engine))
    is_first = moved["prediction_date"] <= "2023-04-02"  # from the two cutoffs in March
    for column in ("lower_bound", "upper_bound"):
        np.testing.assert_array_equal(moved[is_first][column], rows[is_first][column])
    assert is_first.sum() == 3 * 4
    assert (moved["actual_value"] - rows["actual_value"]).max() == pytest.approx(500)
