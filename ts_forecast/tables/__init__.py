"""The tables, typed, by area; importing this package knows them all.

The schema is made by the migrations, never by ``create_all``; a test keeps the two equal.
"""

from ts_forecast.tables.base import Base
from ts_forecast.tables.dataset import Dataset, DatasetFeature
from ts_forecast.tables.evaluation import Metric, MetricSummary
from ts_forecast.tables.experiment import Experiment, Run
from ts_forecast.tables.prediction import Prediction
from ts_forecast.tables.registry import Artifact, RegisteredModel
from ts_forecast.tables.training import Hyperparameter, Model

__all__ = [
    "Artifact",
    "Base",
    "Dataset",
    "DatasetFeature",
    "Experiment",
    "Hyperparameter",
    "Metric",
    "MetricSummary",
    "Model",
    "Prediction",
    "RegisteredModel",
    "Run",
]
