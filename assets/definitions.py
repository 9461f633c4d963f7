"""All definitions, made from the pipeline files.

``workspace.yaml`` loads ``defs`` from here; tests call ``build_definitions`` with their own settings
and pipelines. Loading imports no torch, no neuralforecast and opens no connection; it sets the code
location's logs up.
"""

from collections.abc import Mapping

import dagster as dg

from assets.champion import build_champion, registry_decision
from assets.datasets import build_dataset_assets
from assets.failure_sensors import build_failure_sensors
from assets.maintenance import database_maintenance, maintenance_schedule
from assets.predictions import build_predictions
from assets.sensors import arrivals_sensor
from assets.step import JOB_PREFIX
from assets.summaries import build_metric_summaries
from assets.training import build_trained_models
from resources.postgres import postgres_resource
from resources.ray_executor import executor_of
from ts_forecast.logs.setup import install
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import load_pipelines
from ts_forecast.settings import Settings, load_settings


def build_definitions(settings: Settings, pipelines: Mapping[str, Pipeline]) -> dg.Definitions:
    """Assets, jobs and sensors of every pipeline, the database's upkeep, the registry, the executor."""
    assets: list[dg.AssetsDefinition] = []
    for pipeline in pipelines.values():
        assets += build_dataset_assets(pipeline)
        assets += build_trained_models(pipeline)
        assets += [build_predictions(pipeline), build_metric_summaries(pipeline)]
        assets.append(build_champion(pipeline))
    jobs = {
        name: dg.define_asset_job(
            job_name(name),
            selection=dg.AssetSelection.groups(name),
            description=f"All assets of {name} over a range of quarters.",
        )
        for name in pipelines
    }
    return dg.Definitions(
        assets=assets,
        jobs=[*jobs.values(), database_maintenance, registry_decision],
        schedules=[maintenance_schedule],
        sensors=[
            *(
                arrivals_sensor(pipeline, jobs[name], every=settings.look_seconds)
                for name, pipeline in pipelines.items()
            ),
            *build_failure_sensors(settings, list(pipelines)),
        ],
        resources={"postgres": postgres_resource(settings)},
        executor=executor_of(settings),
    )


def job_name(pipeline: str) -> str:
    """Name of the job that ``ts-forecast materialize`` runs. Backfills are launched from assets."""
    return f"{JOB_PREFIX}{pipeline}"


def _load() -> dg.Definitions:
    settings = load_settings()
    install(settings)
    return build_definitions(settings, load_pipelines(settings.pipelines_dir))


defs = _load()
