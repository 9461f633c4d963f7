"""DAGSTER_HOME and the environment of Dagster's processes, made from the deployment's settings.

What stands in the instance file is explained there (``dagster.yaml`` at the repository's root).
Starting the processes is for those who call this.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import SecretStr

from ts_forecast.db.database import Database
from ts_forecast.errors import SettingsError
from ts_forecast.settings import Settings

INSTANCE_FILE = "dagster.yaml"
_TEMPLATE = Path(__file__).resolve().parents[1] / INSTANCE_FILE
_SCHEME = "postgresql+psycopg2://"


def prepare_dagster_home(settings: Settings, dagster_url: SecretStr) -> Path:
    """Write the instance file into DAGSTER_HOME, from the template and the settings.

    Safe to repeat and to do from several processes; the file is replaced only when it differs. The
    URL is checked, not written: the file names the variable that holds it.

    Returns:
        The folder.

    Raises:
        SettingsError: the template is missing, or the URL is of a kind that Dagster's storage
            cannot use.
    """
    if not dagster_url.get_secret_value().startswith(_SCHEME):
        raise SettingsError(
            f"Dagster's storage needs a URL that starts with {_SCHEME}.",
            remedy="Take it from ts_forecast.db.database.open_database.",
        )
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    target = home / INSTANCE_FILE
    content = _instance_file(settings)
    if not target.exists() or target.read_text(encoding="utf-8") != content:
        draft = target.with_suffix(f".{os.getpid()}")
        draft.write_text(content, encoding="utf-8")
        draft.replace(target)
    return home


def dagster_environment(settings: Settings, database: Database) -> dict[str, str]:
    """What the webserver, the daemon and every run need to find this deployment.

    Holds passwords and keys: for the environment of child processes, never for a log.
    DATABASE_URL is among it only if it was given; without it each process joins the embedded
    server, and starts it again after a crash.
    """
    environment = {
        "DAGSTER_HOME": str(settings.dagster_home),
        "DAGSTER_POSTGRES_URL": database.dagster_url.get_secret_value(),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "TS_FORECAST_HOME": str(settings.home),
        "TS_FORECAST_PIPELINES": str(settings.pipelines_dir),
        "DATA_DIR": str(settings.data_dir),
        "MODEL_DIR": str(settings.model_dir),
        "OUTPUT_DIR": str(settings.output_dir),
        "LOG_DIR": str(settings.log_dir),
        "LOG_LEVEL": settings.log_level,
        "LOG_FORMAT": settings.log_format,
        "LOG_TO_DATABASE": str(settings.log_to_database).lower(),
        "TS_FORECAST_USER": settings.user,
        "DATABASE_POOL_SIZE": str(settings.database_pool_size),
        "DATABASE_MAX_OVERFLOW": str(settings.database_max_overflow),
        "DATABASE_POOL_TIMEOUT": str(settings.database_pool_timeout),
        "DATABASE_ECHO": str(settings.database_echo).lower(),
        "TS_FORECAST_EXECUTOR": settings.executor,
        "ENABLE_GPU": str(settings.enable_gpu).lower(),
        "GPU_MEMORY_LIMIT": str(settings.gpu_memory_limit),
        "TS_FORECAST_LOOK_SECONDS": str(settings.look_seconds),
        "MAX_PARALLEL_RUNS": str(settings.max_parallel_runs),
        # Results depend on the order of a set in neuralforecast.
        "PYTHONHASHSEED": "0",
        # Counting GPUs must not start CUDA in a process that forks.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    if settings.database_url is not None:
        environment["DATABASE_URL"] = database.url.get_secret_value()
    for name, secret in (
        ("DATABASE_READ_URL", settings.database_read_url),
        ("TS_FORECAST_SECRET_KEYS", settings.secret_keys),
        ("TS_FORECAST_WEBHOOK_URL", settings.webhook_url),
    ):
        if secret is not None:
            environment[name] = secret.get_secret_value()
    for name, text in (
        ("RAY_ADDRESS", settings.ray_address),
        ("RAY_NAMESPACE", settings.ray_namespace),
    ):
        if text is not None:
            environment[name] = text
    if settings.slots is not None:
        environment["TS_FORECAST_SLOTS"] = str(settings.slots)
    if settings.devices is not None:
        environment["TS_FORECAST_DEVICES"] = ",".join(settings.devices)
    return environment


def _instance_file(settings: Settings) -> str:
    try:
        template = _TEMPLATE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"There is no {_TEMPLATE}.", remedy="Run from a checkout of the repository."
        ) from None
    configuration = yaml.safe_load(template)
    # A plain integer in Dagster's schema: it cannot come from the environment.
    configuration["concurrency"]["runs"]["max_concurrent_runs"] = settings.max_parallel_runs
    configuration["python_logs"]["python_log_level"] = settings.log_level
    text = yaml.safe_dump(configuration, sort_keys=False)
    return (
        f"# Written by ts-forecast from {INSTANCE_FILE} of the repository; edit that one.\n{text}"
    )
