"""The ``source`` of a pipeline file: files or a query with the history, and what its columns are called.

Schema only. The rest of the file is ``pipeline``; reading the files that are named here is ``datasets``.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ts_forecast.errors import StorageError
from ts_forecast.places import is_url, place

FileFormat = Literal["csv", "parquet", "json", "feather"]
_REFERENCE = re.compile(r"env:[A-Za-z_]\w*|secret:[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")


class Strict(BaseModel):
    """A part of the pipeline file: no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic would read true as 1 elsewhere. YAML reads an unquoted yes so, too.
        if info.field_name and cls.model_fields[info.field_name].annotation is bool:
            return value
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in items):
            raise ValueError("true and false are no value here")
        return value


class StaticSource(Strict):
    """A second file with one row a series."""

    files: str = Field(
        description="Path or glob of the static file, relative to DATA_DIR, or a URL."
    )
    id_column: str = "unique_id"
    format: FileFormat | None = Field(None, description="Default: by the file name's ending.")


class WideLayout(Strict):
    """A file with one column a series: how its column names are read."""

    target: str = Field(
        "{unique_id}",
        description="Pattern of the target columns, e.g. 'QTY_{unique_id}'. '{unique_id}' alone "
        "takes every column but the time column and those of `exogenous` and `ignore`.",
    )
    exogenous: dict[str, str] = Field(
        default_factory=dict,
        description="Column per series for an exogenous name, e.g. {promo: 'PROMO_{unique_id}'}.",
    )
    ignore: tuple[str, ...] = Field((), description="Columns that are no series.")

    @field_validator("target")
    @classmethod
    def _names_the_series(cls, value: str) -> str:
        return _check_pattern(value)

    @field_validator("exogenous")
    @classmethod
    def _each_names_the_series(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: _check_pattern(pattern) for name, pattern in value.items()}


def _check_pattern(value: str) -> str:
    if value.count("{unique_id}") != 1:
        raise ValueError("it must hold {unique_id} exactly once")
    return value


class SqlSource(Strict):
    """A query whose rows are the history."""

    url: str = Field(
        min_length=1,
        description="env:NAME, a variable of the environment, or secret:NAME, a secret of "
        "system_config, that holds a SQLAlchemy URL; or a URL without a password.",
    )
    query: str = Field(
        min_length=1, description="SELECT of the whole history, the watermark among its columns."
    )
    watermark: str = Field(
        min_length=1,
        description="Column of the query that grows whenever a row is added or changed, e.g. "
        "updated_at.",
    )

    @field_validator("query")
    @classmethod
    def _is_a_part_of_another(cls, value: str) -> str:
        return value.strip().rstrip(";").rstrip()

    # Of the whole, not of its key: messages quote what stands in a key.
    @model_validator(mode="after")
    def _hides_its_password(self) -> SqlSource:
        if _REFERENCE.fullmatch(self.url):
            return self
        try:
            url = make_url(self.url)
        except (ArgumentError, ValueError):
            raise ValueError(
                "url: it is neither env:NAME nor secret:NAME nor a database URL"
            ) from None
        if url.password or any("pass" in key.lower() for key in url.query):
            raise ValueError(
                "url: no password belongs in a pipeline file; put the URL into a variable of the "
                "environment, and its name here: env:NAME"
            )
        return self


class Source(Strict):
    """Where the history lies and what its columns are called."""

    files: str | tuple[str, ...] = Field(
        (),
        description="Paths or globs, relative to DATA_DIR, or URLs of an object store; a later file "
        "name restates earlier rows.",
    )
    sql: SqlSource | None = Field(None, description="Instead of files: a query.")
    format: FileFormat | None = Field(None, description="Default: by the file name's ending.")
    encoding: str = Field("utf-8", description="Of CSV and JSON files.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Of CSV files.")
    time_column: str = "ds"
    time_format: str | None = Field(
        None, description="strptime format of the time column; default: ISO 8601."
    )
    id_column: str | None = Field("unique_id", description="null: the file holds one series.")
    series_name: str | None = Field(
        None,
        description="unique_id of the one series where id_column is null; default: the pipeline.",
    )
    target_column: str = "y"
    wide: WideLayout | None = Field(None, description="Set for files with one column a series.")
    static: StaticSource | None = None
    as_of: str | None = Field(
        None,
        description="Regular expression with one group over the file name, giving the date (ISO) up "
        "to which the file claims to hold observations; later observations are refused. Default: "
        "the file's modification time.",
    )

    @field_validator("files", mode="before")
    @classmethod
    def _names_files(cls, value: object) -> object:
        patterns = list(value) if isinstance(value, list | tuple) else [value]
        if not patterns or not all(isinstance(item, str) and item for item in patterns):
            raise ValueError("a path or glob is wanted, or a list of them")
        for pattern in patterns:
            if is_url(str(pattern)):
                try:
                    place(str(pattern))
                except StorageError as error:
                    raise ValueError(str(error)) from None
        return value

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError("it is no text encoding, such as utf-8 or latin-1") from None
        return value

    @field_validator("as_of")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"it is not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"it must have exactly one group, it has {groups}")
        return value

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Source:
        if bool(self.files) == (self.sql is not None):
            raise ValueError("either files or sql is wanted")
        if self.sql is not None and self.as_of is not None:
            raise ValueError("as_of is of files; a query has no name")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """``files`` as a tuple."""
        return (self.files,) if isinstance(self.files, str) else self.files
