"""What the processes of runs and steps have imported before they begin, and in what environment.

Names of modules and variables, and which zygote has them. Who imports them when is ``forkserver`` and
``zygote``; what a step does with them is ``step_process``.
"""

from __future__ import annotations

from resources.devices import find_devices
from resources.zygote import Zygote
from ts_forecast.cores import thread_environment
from ts_forecast.settings import Settings

# What every step needs, and what training and predicting need besides.
LIBRARIES = (
    "dagster._cli.api",
    "dagster_postgres",
    "sqlalchemy.dialects.postgresql.psycopg",
    "alembic",
    "pandas",
    "pyarrow.parquet",
)
# What scores, judges and draws: needed by the steps at a plan's end. In parts, as a step that is asked
# for meanwhile waits for the one at hand.
PRELOAD_LATER = (
    "scipy.special",
    "scipy.sparse",
    "scipy.spatial",
    "scipy.optimize",
    "scipy.stats.distributions",
    "scipy.stats",
    "matplotlib",
    "matplotlib.colors",
    "matplotlib.figure",
    "matplotlib.dates",
    "jinja2",
)
TRAINING_PRELOAD = ("neuralforecast", "statsforecast", "matplotlib.figure")
# What a zygote has besides: definitions and settings are made with them.
_DEFINING = ("pydantic_settings", "typer", "rich.progress", "upath", "concurrent_log_handler")
ZYGOTE_LIBRARIES = (*LIBRARIES, *_DEFINING, *TRAINING_PRELOAD, *PRELOAD_LATER)


def zygote_of(settings: Settings) -> Zygote:
    """Where the processes of this deployment's runs are born.

    Raises:
        DeviceError: the devices cannot be counted.
    """
    return Zygote(settings.home / "zygotes", find_devices(settings)[0].threads)


def process_environment(threads: int) -> dict[str, str]:
    """What must stand in a process's environment before it imports anything for a step."""
    return {
        **thread_environment(threads),
        # No threads in a process that forks: these two libraries start theirs when imported.
        "OPENBLAS_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        # neuralforecast's results depend on the order of a set of strings.
        "PYTHONHASHSEED": "0",
        # Lets libraries count GPUs without starting CUDA, which would not survive the fork.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
