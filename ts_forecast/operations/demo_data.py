"""The demo's data: Box and Jenkins' airline passengers, out of an installed dependency."""

from __future__ import annotations

from pathlib import Path

from ts_forecast.errors import SettingsError
from ts_forecast.files import write_whole
from ts_forecast.places import Place, exists
from ts_forecast.settings import Settings

DEMO_PIPELINE = "air_passengers"
DEMO_QUARTERS = ("1959-Q3", "1960-Q4")
BASELINE = "SeasonalNaive"
_ROOT = Path(__file__).resolve().parents[2]


def demo_pipelines() -> Path:
    """The repository's folder of pipeline files, wherever the demo is called from.

    Raises:
        SettingsError: the package was installed without its repository.
    """
    folder = _ROOT / "pipelines"
    if not (folder / f"{DEMO_PIPELINE}.yaml").is_file():
        raise SettingsError(
            f"There is no {folder / DEMO_PIPELINE}.yaml.",
            remedy="Install ts-forecast from a clone with `pip install -e .`, as `make` does.",
        )
    return folder


def write_demo_data(settings: Settings) -> Place:
    """Write ``raw/air_passengers.csv`` if it is not there; its path.

    ``neuralforecast.utils.AirPassengersPanel``: the monthly totals of 1949 to 1960 (Airline1), and the
    same shifted by 300 (Airline2), which the library uses to show panels.
    """
    path = settings.data_dir / "raw" / "air_passengers.csv"
    if not exists(path):
        from neuralforecast.utils import AirPassengersPanel

        columns = AirPassengersPanel[["unique_id", "ds", "y"]]
        write_whole(path, lambda draft: columns.to_csv(draft, index=False))
    return path
