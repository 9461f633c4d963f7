"""The configuration of a deployment: environment and ``.env`` into one frozen object.

Names and defaults follow the deployment guide. What a single forecasting problem needs stands in its
pipeline file (``pipeline``), not here. Read once, through ``load_settings``; nothing else in the
package looks at the environment.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from upath import UPath

from ts_forecast.cores import usable_cores
from ts_forecast.errors import SettingsError, StorageError
from ts_forecast.places import Place, place

_PREFIXES = ("DATABASE_", "TS_FORECAST_")
_LONGEST_USER = 255


def _login_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container that runs under a number of its own.
        return f"uid-{os.getuid()}"


class Settings(BaseSettings):
    """One deployment's settings. Paths are absolute, or URLs of a store; secrets never show in ``repr``.

    ``extra="forbid"`` covers ``.env``; ``load_settings`` also refuses misspelt ``DATABASE_*`` and
    ``TS_FORECAST_*`` variables of the environment.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    def __init__(self, **values: Any) -> None:
        # Not `populate_by_name`: it reads HOME from the environment as the field `home`.
        aliases = {name: str(field.validation_alias) for name, field in _aliased(type(self))}
        super().__init__(**{aliases.get(name, name): value for name, value in values.items()})

    home: Path = Field(
        Path(".ts-forecast"),
        validation_alias="TS_FORECAST_HOME",
        description="The embedded server's data, Dagster's home and device locks.",
    )
    pipelines_dir: Path = Field(Path("pipelines"), validation_alias="TS_FORECAST_PIPELINES")
    data_dir: Place = Field(Path("data"), description="raw, processed, interim and external files")
    model_dir: Place = Field(Path("models"), description="fitted models: staging and production")
    output_dir: Place = Field(Path("outputs"), description="reports, plots and one-shot results")
    log_dir: Path = Path("logs")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="From which level on log files hold a record."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="How files and pipes are written; a terminal always gets text."
    )
    log_to_database: bool = Field(
        True, description="Write warnings and above to system_logs as well."
    )

    database_url: SecretStr | None = Field(
        None, description="A PostgreSQL server; unset: the embedded one under TS_FORECAST_HOME."
    )
    database_read_url: SecretStr | None = Field(
        None, description="A replica for reports that may lag behind; unset: the same server."
    )
    database_pool_size: int = Field(10, ge=1, le=200)
    database_max_overflow: int = Field(20, ge=0, le=500)
    database_pool_timeout: float = Field(30.0, gt=0)
    database_echo: bool = False
    user: str = Field(
        default_factory=_login_name,
        min_length=1,
        max_length=_LONGEST_USER,
        validation_alias="TS_FORECAST_USER",
        description="Who acts, for the audit log and row-level security; unset: the login name.",
    )
    secret_keys: SecretStr | None = Field(
        None,
        validation_alias="TS_FORECAST_SECRET_KEYS",
        description="Fernet keys of the secrets in system_config, comma-separated, newest first.",
    )
    webhook_url: SecretStr | None = Field(
        None,
        validation_alias="TS_FORECAST_WEBHOOK_URL",
        description="Is told of failed runs and checks, in the JSON of Slack's incoming webhooks.",
    )

    executor: Literal["local", "ray"] = Field(
        "local",
        validation_alias="TS_FORECAST_EXECUTOR",
        description="Where steps run: in processes of this host, or on a Ray cluster.",
    )
    ray_address: str | None = Field(
        None, description="The Ray cluster; unset: a Ray of each run's own on this host."
    )
    ray_namespace: str | None = Field(None, description="Ray's namespace of our runs.")
    look_seconds: int = Field(
        30,
        ge=1,
        le=86_400,
        validation_alias="TS_FORECAST_LOOK_SECONDS",
        description="Between two looks of a sensor at its pipeline's source.",
    )
    slots: int | None = Field(
        None,
        ge=1,
        validation_alias="TS_FORECAST_SLOTS",
        description="CPU training slots on this host; unset: one for every core, at most 4.",
    )
    devices: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        validation_alias="TS_FORECAST_DEVICES",
        description="Comma-separated device identifiers instead of those that NVML finds.",
    )
    max_parallel_runs: int = Field(4, ge=1, le=256)
    enable_gpu: bool = True
    gpu_memory_limit: float = Field(
        1.0, gt=0, le=1, description="Fraction of its GPU's memory that a step may allocate."
    )

    @field_validator("devices", mode="before")
    @classmethod
    def _split_devices(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip()) or None
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _capitalize(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("user")
    @classmethod
    def _check_user(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError("it must be printable, without spaces around it")
        return value

    @field_validator("database_url", "database_read_url", mode="before")
    @classmethod
    def _use_psycopg3(cls, value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str) or not text:
            return None
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
            raise ValueError("it must start with postgresql://")
        url = f"postgresql+psycopg://{rest}"
        try:
            make_url(url)
        except (ArgumentError, ValueError):
            # Never the library's message: it quotes what it could not read.
            raise ValueError(
                "it must have the form postgresql://user:password@host:port/database"
            ) from None
        return SecretStr(url)

    @field_validator("webhook_url")
    @classmethod
    def _check_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("it must start with https:// or http://")
        return value

    @field_validator("data_dir", "model_dir", "output_dir", mode="before")
    @classmethod
    def _find_place(cls, value: object) -> object:
        try:
            found = place(value) if isinstance(value, str) else value
        except StorageError as error:
            raise ValueError(str(error)) from None
        if isinstance(found, UPath) and found.protocol == "memory":
            raise ValueError("memory:// is of one process alone")
        return found

    @field_validator("home", "pipelines_dir", "data_dir", "model_dir", "output_dir", "log_dir")
    @classmethod
    def _make_absolute(cls, value: Place) -> Place:
        return value.expanduser().absolute() if isinstance(value, Path) else value

    @property
    def dagster_home(self) -> Path:
        """Where Dagster keeps its instance file and its compute logs."""
        return self.home / "dagster"

    @property
    def cpu_slots(self) -> int:
        """Training steps that may run side by side on a host without a GPU."""
        return self.slots or min(8, usable_cores())


def load_settings(**overrides: object) -> Settings:
    """Read the environment and ``.env`` of the working directory.

    Raises:
        SettingsError: a value is impossible or a name is unknown; names each of them.
    """
    known = variable_names()
    # Names are read whatever their case, so they are checked so.
    strays = sorted(
        name
        for name in os.environ
        if name.upper().startswith(_PREFIXES) and name.upper() not in known
    )
    if strays:
        raise SettingsError(
            f"Unknown environment variable {', '.join(strays)}.",
            remedy=f"Known names: {', '.join(sorted(known))}.",
        )
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # Never the value: it may be a secret.
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors()
        )
        raise SettingsError(
            f"The environment or .env is wrong: {problems}.", remedy="See docs/configuration.md."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f".env cannot be read: {type(error).__name__}.", remedy="Write it as UTF-8 text."
        ) from None


def variable(name: str) -> SecretStr | None:
    """A variable of the environment that a pipeline file names; None if it is unset or empty."""
    value = os.environ.get(name)
    return SecretStr(value) if value else None


def _aliased(model: type[BaseSettings]) -> list[tuple[str, FieldInfo]]:
    return [item for item in model.model_fields.items() if item[1].validation_alias is not None]


def variable_names() -> set[str]:
    """Names of all settings in the environment, in capitals."""
    return {
        str(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()
    }
