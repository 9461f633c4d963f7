"""The tables, typed, by area; importing this package knows them all.

The schema is made by the migrations, never by ``create_all``; a test keeps the two equal.
"""

from ts_forecast.tables.account import User, UserExperiment
from ts_forecast.tables.archive import ArchivedPartition
from ts_forecast.tables.base import Base
from ts_forecast.tables.configuration import SystemConfig, Tag
from ts_forecast.tables.dataset import Dataset, DatasetFeature
from ts_forecast.tables.evaluation import Metric, MetricSummary
from ts_forecast.tables.experiment import Experiment, Run
from ts_forecast.tables.log import AuditLog, SystemLog
from ts_forecast.tables.prediction import Prediction
from ts_forecast.tables.registry import Artifact, RegisteredModel
from ts_forecast.tables.staging import Rejected, Upload
from ts_forecast.tables.training import Hyperparameter, Model, SearchSpace

__all__ = [
    "ArchivedPartition",
    "Artifact",
    "AuditLog",
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
    "Rejected",
    "Run",
    "SearchSpace",
    "SystemConfig",
    "SystemLog",
    "Tag",
    "Upload",
    "User",
    "UserExperiment",
]
