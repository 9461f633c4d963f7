"""Settings: names that are none are refused, secrets never show."""

from __future__ import annotations

from pathlib import Path

import pytest

from ts_forecast.errors import SettingsError
from ts_forecast.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("TS_FORECAST_HOME", "TS_FORECAST_PIPELINES", "TS_FORECAST_SLOTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_load_settings__nothing_given__is_below_the_working_directory(elsewhere: Path) -> None:
    settings = load_settings()

    # Not $HOME: the field is called home, the variable TS_FORECAST_HOME.
    assert settings.home == elsewhere / ".ts-forecast"
    assert settings.database_url is None


def test_load_settings__env_file__is_read(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text("TS_FORECAST_SLOTS=3\nDATA_DIR=/data\n")

    settings = load_settings()

    assert (settings.slots, settings.data_dir) == (3, Path("/data"))


def test_load_settings__typo_in_env_file__is_refused(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text("DATA_DRI=/data\n")

    with pytest.raises(SettingsError, match="DATA_DRI"):
        load_settings()


@pytest.mark.parametrize("name", ["DATABASE_ULR", "TS_FORECAST_HOEM", "database_ulr"])
def test_load_settings__typo_in_the_environment__is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")

    with pytest.raises(SettingsError, match=f"Unknown environment variable {name}"):
        load_settings()


@pytest.mark.parametrize("name", ["TS_FORECAST_SLOTS", "TS_FORECAST_DEVICES", "DATABASE_URL"])
def test_load_settings__blank__is_not_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As `${TS_FORECAST_SLOTS:-}` in a compose file leaves it.
    monkeypatch.setenv(name, "")

    settings = load_settings()

    assert (settings.slots, settings.devices, settings.database_url) == (None, None, None)


def test_load_settings__env_file_not_utf8__says_so(elsewhere: Path) -> None:
    (elsewhere / ".env").write_bytes(b"DATA_DIR=\xff\xfe\n")

    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings()


def test_load_settings__several_wrong__names_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_FORECAST_SLOTS", "many")
    monkeypatch.setenv("MAX_PARALLEL_RUNS", "0")

    with pytest.raises(SettingsError, match=r"(?s)SLOTS.*MAX_PARALLEL_RUNS") as caught:
        load_settings()

    assert caught.value.exit_code == 2


def test_settings__read__cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().slots = 3  # type: ignore[misc]


def test_devices__comma_separated__are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_FORECAST_DEVICES", " 0, GPU-1 ,")

    assert load_settings().devices == ("0", "GPU-1")


def test_settings__password__shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:s3cret@host/db")

    settings = load_settings()

    assert "s3cret" not in repr(settings) + str(settings) + str(settings.model_dump())
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://user:s3cret@host/db"


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("mysql://user:s3cret@host/db", "must start with postgresql"),
        ("user:s3cret@host/db", "must start with postgresql"),
        ("postgresql://user:s3cret@host:port/db", "must have the form postgresql://"),
        ("postgresql://user@host:s3cret", "must have the form postgresql://"),
    ],
)
def test_load_settings__wrong_url__does_not_print_it(
    url: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    with pytest.raises(SettingsError, match=pattern) as caught:
        load_settings()

    assert "s3cret" not in str(caught.value)
