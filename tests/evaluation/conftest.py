"""A pipeline with stored datasets and slices published without training anything."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from ts_forecast.datasets.quarter import ingest_quarters
from ts_forecast.db.engine import transaction
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.predictions.slice import PREDICTION_SCHEMA, publish_slice
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import RunKey, tracked_run

QUARTER = Quarter(2023, 1)
SERIES = ("a", "b", "c")
DAYS = pd.date_range("2022-07-01", "2023-03-31", freq="D")


def make_pipeline(**changes: object) -> Pipeline:
    """Three daily series, a week ahead, one model and the baseline."""
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2022-07-01",
        "window_quarters": 2,
        "models": [{"model": "Naive", "name": "Other"}, "SeasonalNaive"],
        "levels": [80],
        "metrics": ["mae", "rmse", "mase", "bias"],
    }
    return parse_pipeline(content | changes, origin="test")


@dataclass
class Problem:
    """One pipeline, its deployment, and what publishing its slices takes."""

    engine: Engine
    settings: Settings
    pipeline: Pipeline
    history: pd.DataFrame
    experiment_id: int
    models: dict[str, int] = field(default_factory=dict)
    quarter: Quarter = QUARTER
    series: tuple[str, ...] = SERIES

    def rows(self, *, error: float = 1.0, with_actuals: bool = True) -> pa.Table:
        """A week's forecasts from every cutoff: ``Other`` errs by ``error``, the baseline by 2."""
        plan = self.pipeline.slice_plan(QUARTER)
        cutoffs, ahead = plan.pairs()
        dates = self.pipeline.grid.timestamps(cutoffs + ahead)
        actual = self.history.set_index(["unique_id", "ds"])["y"]
        parts = []
        for model, miss in (("Other", error), ("SeasonalNaive", 2.0)):
            for series in SERIES:
                truth = actual.loc[series].reindex(dates).to_numpy()
                quantiles = truth[:, None] + miss + np.array([-1.5, 0.0, 1.5])
                parts.append(
                    pa.table(
                        {
                            "model_id": pa.repeat(pa.scalar(self.models[model]), len(dates)),
                            "unique_id": pa.repeat(pa.scalar(series), len(dates)),
                            "prediction_date": pa.array(dates.as_unit("us").to_numpy()),
                            "horizon": pa.array(ahead.astype(np.int32)),
                            "predicted_value": truth + miss,
                            "actual_value": pa.array(
                                truth, mask=np.full(len(truth), not with_actuals)
                            ),
                            "lower_bound": quantiles[:, 0],
                            "upper_bound": quantiles[:, 2],
                            "confidence_level": np.full(len(dates), 0.8),
                            "quantiles": pa.array(list(quantiles)),
                        }
                    ).cast(PREDICTION_SCHEMA)
                )
        return pa.concat_tables(parts)

    def publish(self, rows: pa.Table, name: str = "first") -> int:
        """Publish the rows as a prediction run would; its run id."""
        key = RunKey(self.experiment_id, "predict", name, f"predict-{name}", QUARTER)
        with tracked_run(self.engine, key) as run:
            publish_slice(
                self.engine,
                experiment_id=self.experiment_id,
                run_id=run.run_id,
                quarter=QUARTER,
                rows=rows,
            )
            with transaction(self.engine) as session:
                run.complete(session)
        return run.run_id


@pytest.fixture
def problem(engine: Engine, settings: Settings) -> Problem:
    """The pipeline with three quarters of data and two models on record."""
    pipeline = make_pipeline()
    days = np.arange(len(DAYS))
    history = pd.concat(
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": DAYS,
                # A weekly wave and a trend: a seasonal difference of 7 * size.
                "y": 100 * size + days * size + 10 * np.sin(2 * np.pi * days / 7),
            }
        )
        for size, name in enumerate(SERIES, start=1)
    )
    settings.data_dir.mkdir(parents=True)
    history.to_csv(settings.data_dir / "demo.csv", index=False)
    ingest_quarters(engine, settings, pipeline, [*pipeline.window(QUARTER), QUARTER])
    with transaction(engine) as session:
        experiment_id = ensure_experiment(session, pipeline)
    made = Problem(engine, settings, pipeline, history, experiment_id)
    for spec in pipeline.models:
        key = RunKey(experiment_id, "train", spec.name, f"train-{spec.name}", QUARTER)
        with tracked_run(engine, key) as run, transaction(engine) as session:
            model = Model(
                run_id=run.run_id,
                model_name=spec.name,
                model_type=spec.model,
                framework=spec.kind.framework,
                model_config={},
                model_file_path="none",
                quarter_start=QUARTER.start.date(),
                status="trained",
            )
            session.add(model)
            session.flush()
            made.models[spec.name] = model.model_id
            run.complete(session)
    return made
