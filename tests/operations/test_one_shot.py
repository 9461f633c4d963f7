"""One-shot forecasts: what they hold out, what they record, what they refuse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, text

from ts_forecast.cores import usable_cores
from ts_forecast.errors import DatasetError, DeviceError, PipelineError, SourceError
from ts_forecast.operations.columns import infer_columns
from ts_forecast.operations.one_shot import OneShot, Request, forecast_file
from ts_forecast.operations.one_shot_models import use_backend
from ts_forecast.settings import Settings

HORIZON = 7


def demand(path: Path, *, days: int = 120, seed: int = 1) -> Path:
    """Two series with a weekly season; the second starts a month late."""
    rng = np.random.default_rng(seed)
    stamps = pd.date_range("2024-01-01", periods=days)
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": stamps[late:],
                "y": 50
                + 9 * np.sin(stamps[late:].dayofweek / 7 * 6.28)
                + rng.normal(size=days - late),
            }
        )
        for name, late in (("a", 0), ("b", 30))
    ]
    pd.concat(parts).to_csv(path, index=False)
    return path


def request(path: Path, folder: Path, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "models": ("MLP",),
        "horizons": (HORIZON,),
        "output_dir": folder / "out",
        "parameters": {"max_steps": 2, "input_size": 14},
    }
    return Request(path, infer_columns(path), **(values | changes))


def rows(engine: Engine, sql: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(sql)))


def is_held_out(predictions: pd.DataFrame) -> pd.Series[bool]:
    return predictions["cutoff"] == pd.Timestamp("2024-04-22")


@pytest.fixture
def first(engine: Engine, settings: Settings, tmp_path: Path) -> OneShot:
    path = demand(tmp_path / "demand.csv")
    return forecast_file(engine, settings, request(path, tmp_path, levels=(80, 95)))


def test_forecast_file__holdout_and_future__in_files_and_slices(
    engine: Engine, first: OneShot
) -> None:
    cutoffs = first.predictions.groupby("cutoff")["actual_value"].agg(["size", "count"])
    lines = [tuple(line) for line in cutoffs.itertuples()]
    # Two models and two series: all observed in the holdout, nothing after the end.
    assert lines == [
        (pd.Timestamp("2024-04-22"), 4 * HORIZON, 4 * HORIZON),
        (pd.Timestamp("2024-04-29"), 4 * HORIZON, 0),
    ]
    assert {"lower_80", "upper_80", "lower_95", "upper_95"} <= set(first.predictions)
    stored = rows(
        engine,
        "SELECT model_name, unique_id, prediction_date, horizon, predicted_value, lower_bound, "
        "quantiles, confidence_level FROM predictions JOIN models USING (model_id)",
    )
    keys = ["model", "unique_id", "ds", "step"]
    printed = first.predictions.set_index(keys)
    assert len(stored) == len(printed)
    for model, series, date, step, value, lower, quantiles, level in stored:
        line = printed.loc[(model, series, date, step)]
        names = ["lower_95", "lower_80", "predicted_value", "upper_80", "upper_95"]
        assert value == pytest.approx(line["predicted_value"])
        assert lower == pytest.approx(line["lower_80"])
        assert quantiles == pytest.approx(line[names].tolist())
        assert level == pytest.approx(0.8)


def test_forecast_file__scores__belong_to_the_run_of_the_forecasts(
    engine: Engine, first: OneShot
) -> None:
    stored = rows(
        engine,
        "SELECT model_name, metric_name, metric_value, r.tags->>'kind', length(run_fingerprint) "
        "FROM metrics m JOIN runs r USING (run_id) JOIN models ON models.model_id = m.model_id "
        "WHERE dataset_type = 'test'",
    )

    found = {(row[0], row[1]): float(row[2]) for row in stored}
    expected = first.metrics.set_index(["model", "metric"])["value"].to_dict()
    assert found == pytest.approx(expected)
    assert {row[3] for row in stored} == {"predict"}
    skill = 1 - expected["MLP", "mae"] / expected["SeasonalNaive", "mae"]
    assert expected["MLP", "skill"] == pytest.approx(skill)
    assert rows(engine, "SELECT count(*) FROM artifacts WHERE artifact_type = 'model'") == [(2,)]
    assert rows(
        engine, "SELECT param_value FROM hyperparameters WHERE param_key = 'max_steps'"
    ) == [("2",)]


def test_forecast_file__again__reuses_all_and_changes_nothing(
    engine: Engine, settings: Settings, tmp_path: Path, first: OneShot
) -> None:
    query = "SELECT run_id, run_uuid, status, deleted_at FROM runs ORDER BY 1"
    before = rows(engine, query)
    path = tmp_path / "demand.csv"

    second = forecast_file(engine, settings, request(path, tmp_path, levels=(80, 95)))

    assert second.reused == 2
    assert rows(engine, query) == before
    pd.testing.assert_frame_equal(second.predictions, first.predictions)
    pd.testing.assert_frame_equal(second.metrics, first.metrics)

    forced = forecast_file(engine, settings, request(path, tmp_path, levels=(80, 95), force=True))

    assert forced.reused == 0
    values = forced.predictions["predicted_value"], first.predictions["predicted_value"]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_forecast_file__restated_holdout__keeps_models_and_scores_anew(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = demand(tmp_path / "demand.csv")
    before = forecast_file(engine, settings, request(path, tmp_path))
    # The default parser is off by the last bit, which would be another history.
    frame = pd.read_csv(path, float_precision="round_trip")
    frame.loc[frame["ds"] > "2024-04-22", "y"] += 100
    frame.to_csv(path, index=False)

    after = forecast_file(engine, settings, request(path, tmp_path))

    # The models saw nothing of the holdout; the same models, other errors.
    assert after.reused == 2
    held_out = [
        result.predictions.loc[is_held_out(result.predictions), "predicted_value"].to_numpy()
        for result in (before, after)
    ]
    np.testing.assert_array_equal(*held_out)
    errors = [
        result.metrics.query("model == 'MLP' and metric == 'mae'")["value"].iloc[0]
        for result in (before, after)
    ]
    assert errors[1] > errors[0] + 50
    standing = rows(
        engine,
        "SELECT metric_value FROM metrics JOIN runs USING (run_id) JOIN models USING (model_id) "
        "WHERE deleted_at IS NULL AND dataset_type = 'test' AND metric_name = 'mae' "
        "AND model_name = 'MLP'",
    )
    assert [float(row[0]) for row in standing] == pytest.approx([errors[1]])


def test_forecast_file__other_models_in_between__slice_is_the_last_runs(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = demand(tmp_path / "demand.csv")
    query = "SELECT DISTINCT model_name FROM predictions JOIN models USING (model_id) ORDER BY 1"
    for models in (("MLP",), ("DLinear",), ("MLP",)):
        forecast_file(engine, settings, request(path, tmp_path, models=models))

        assert [row[0] for row in rows(engine, query)] == [*models, "SeasonalNaive"]


def test_forecast_file__same_name_in_another_folder__is_another_experiment(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    for folder, seed in (("x", 1), ("y", 2)):
        (tmp_path / folder).mkdir()
        path = demand(tmp_path / folder / "demand.csv", seed=seed)
        forecast_file(engine, settings, request(path, tmp_path, models=("Naive",)))

    assert rows(engine, "SELECT count(DISTINCT experiment_id), count(*) FROM predictions") == [
        (2, 2 * 2 * 2 * 2 * HORIZON)
    ]


def test_forecast_file__model_without_bounds__gets_conformal_ones_around_its_point(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = demand(tmp_path / "demand.csv")
    models = ("SimpleExponentialSmoothingOptimized",)

    result = forecast_file(engine, settings, request(path, tmp_path, models=models, levels=(80,)))

    smooth = result.predictions[result.predictions["model"] == models[0]]
    assert smooth["predicted_value"].notna().all()
    for bound in ("lower_80", "upper_80"):
        width = (smooth[bound] - smooth["predicted_value"]).abs()
        assert (width > 0).all()
    assert (smooth["lower_80"] < smooth["upper_80"]).all()
    assert rows(
        engine,
        "SELECT count(*), count(quantiles), count(confidence_level) FROM predictions "
        "JOIN models USING (model_id) WHERE model_name <> 'SeasonalNaive'",
    ) == [(len(smooth),) * 3]


def test_forecast_file__gaps__are_counted_or_refused(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = demand(tmp_path / "demand.csv")
    frame = pd.read_csv(path)
    frame = frame.drop(index=[40, 41])
    frame.loc[50, "y"] = np.nan
    frame.to_csv(path, index=False)

    result = forecast_file(engine, settings, request(path, tmp_path, models=("Naive",)))

    assert result.missing == 3
    with pytest.raises(SourceError, match="series 'a' has no value at 2024-02-10") as caught:
        forecast_file(engine, settings, request(path, tmp_path, missing="error"))
    assert "--missing" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "kind", "pattern"),
    [
        ({"models": ("NHITZ",)}, PipelineError, "unknown model 'NHITZ'"),
        ({"parameters": {"max_stepz": 3}}, PipelineError, "no parameter max_stepz"),
        ({"horizons": (HORIZON, 0)}, PipelineError, "horizon: found 0"),
        ({"levels": (100,)}, PipelineError, "found 100"),
        ({"horizons": (HORIZON, 500)}, DatasetError, "a horizon of 500 needs 507"),
    ],
)
def test_forecast_file__impossible__refused_before_anything_is_written(
    engine: Engine,
    settings: Settings,
    tmp_path: Path,
    changes: dict[str, Any],
    kind: type[Exception],
    pattern: str,
) -> None:
    path = demand(tmp_path / "demand.csv")

    with pytest.raises(kind, match=pattern):
        forecast_file(engine, settings, request(path, tmp_path, **changes))

    assert rows(engine, "SELECT count(*) FROM experiments") == [(0,)]
    assert not (tmp_path / "out").exists()
    assert not settings.model_dir.exists()


def test_use_backend__gpu_that_is_not_there__is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="finds no GPU"):
        use_backend("gpu", settings)
    off = settings.model_copy(update={"enable_gpu": False})
    with pytest.raises(DeviceError, match="ENABLE_GPU"):
        use_backend("gpu", off)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    use_backend("cpu", settings)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_use_backend__leaves_a_core_to_the_rest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    use_backend("cpu", settings)
    assert int(os.environ["OMP_NUM_THREADS"]) == max(1, usable_cores() - 1)

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    use_backend("cpu", settings)
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_forecast_file__auto_model__searches_on_what_is_before_the_holdout(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = demand(tmp_path / "demand.csv")
    held = {"max_steps": 2, "input_size": 14, "windows_batch_size": 16, "hidden_size": 8}
    asked = request(path, tmp_path, models=("AutoMLP",), parameters=held)

    first = forecast_file(engine, settings, asked)
    trials = rows(
        engine,
        "SELECT status, tags->>'pruned' FROM runs WHERE parent_run_id IS NOT NULL",
    )
    again = forecast_file(engine, settings, asked)

    assert len(trials) == 10
    assert ("completed", None) in trials
    assert set(trials) <= {("completed", None), ("killed", "true")}
    assert rows(engine, "SELECT model_type FROM models WHERE model_name = 'AutoMLP'") == [("MLP",)]
    assert again.reused == 2
    pd.testing.assert_frame_equal(again.predictions, first.predictions)
    frame = pd.read_csv(path, float_precision="round_trip")
    frame.loc[pd.to_datetime(frame["ds"]) > "2024-04-22", "y"] += 100
    frame.to_csv(path, index=False)
    assert forecast_file(engine, settings, asked).reused == 2
