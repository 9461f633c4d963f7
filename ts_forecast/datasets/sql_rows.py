"""The rows of a SQL source: polled by a watermark, read whole, known by a hash of their content.

A database cannot be watched as a folder is. The watermark tells cheaply that something has changed; what
has changed is found by reading the query whole, as a file is read whole. No password leaves this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import URL, Connection, column, create_engine, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ts_forecast.configuration.secrets import Keyring
from ts_forecast.configuration.values import get_secret
from ts_forecast.datasets.store import hash_table
from ts_forecast.db.database import open_database
from ts_forecast.db.retry import in_transaction
from ts_forecast.errors import StorageError, TsForecastError
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_source import SqlSource
from ts_forecast.places import Mark, Place
from ts_forecast.settings import Settings, variable

_ROWS_AT_ONCE = 50_000
_NULL = "\x01"
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """What one reading gave.

    Attributes:
        mark: polled before the rows were read, so that what is written meanwhile is found by the next.
        sha256: of the rows as text, whatever their order.
    """

    mark: Mark
    table: pa.Table
    sha256: str


@dataclass(frozen=True)
class SqlRows:
    """The rows of a pipeline's query; an object reads them once.

    Stands where a file's path stands: its text is ``sql:<pipeline>``.
    """

    pipeline: str
    source: SqlSource
    settings: Settings

    def __str__(self) -> str:
        return f"sql:{self.pipeline}"

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """As a file's name."""
        return "sql"

    def poll(self) -> Mark:
        """What changes when rows are added, removed, or changed under a new watermark.

        Number of rows, 0 for the time that a file would have, and a number made of the watermark.

        Raises:
            StorageError: the database does not answer, or refuses the query.
        """
        return self._reading(self._mark)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The rows; read now, or earlier by this object.

        Raises:
            StorageError: the database does not answer, or refuses the query.
        """

        def read(connection: Connection) -> Snapshot:
            mark = self._mark(connection)
            table = _table(connection, self.source.query)
            return Snapshot(mark, table, rows_sha256(table))

        return self._reading(read)

    def _mark(self, connection: Connection) -> Mark:
        name = self.source.watermark
        rows = text(self.source.query).columns(column(name)).subquery("source")
        count, newest = connection.execute(select(func.count(), func.max(rows.c[name]))).one()
        return int(count), 0, int(hashlib.sha256(str(newest).encode()).hexdigest()[:12], 16)

    def _reading(self, read: Callable[[Connection], T]) -> T:
        url = self._url()
        try:
            engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
            with engine.connect() as connection:
                return read(connection)
        except (NoSuchModuleError, ImportError) as error:
            raise StorageError(
                f"{self}: there is no driver for {url.drivername}: {error}.",
                remedy="Install the driver that SQLAlchemy names for this database.",
            ) from None
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            if url.password:
                reason = reason.replace(str(url.password), "***")
            # Without its cause, whose text may hold the address with everything in it.
            raise StorageError(
                f"{self}: source.sql cannot be read: {reason}.",
                remedy="Check source.sql, and that the database answers to that login.",
            ) from None

    def _url(self) -> URL:
        kind, _, name = self.source.url.partition(":")
        if kind == "env":
            value = variable(name)
            if value is None:
                raise StorageError(
                    f"{self}: source.sql.url names the variable {name}, which is not set.",
                    remedy=f"Set it in the environment of whatever runs: {name}=<URL>.",
                )
            given = value.get_secret_value()
        elif kind == "secret":
            given = self._secret(name)
        else:
            given = self.source.url
        try:
            return make_url(given)
        except (ArgumentError, ValueError):
            raise StorageError(
                f"{self}: what source.sql.url stands for is no database URL.",
                remedy="It must have the form dialect://user:password@host/database.",
            ) from None

    def _secret(self, name: str) -> str:
        database = open_database(self.settings, application_name="ts-forecast (secret)")
        try:
            found = in_transaction(
                database.engine,
                lambda session: get_secret(session, name, Keyring(self.settings)),
                read_only=True,
            )
        except TsForecastError as error:
            raise StorageError(
                f"{self}: source.sql.url: {error.problem}", remedy=error.remedy
            ) from (error)
        finally:
            database.dispose()
        return str(found.get_secret_value())


SourceItem = Place | SqlRows


def sql_rows(pipeline: Pipeline, settings: Settings) -> SqlRows | None:
    """The pipeline's query, not read yet; None if its source is files."""
    sql = pipeline.source.sql
    return None if sql is None else SqlRows(pipeline.name, sql, settings)


def rows_sha256(table: pa.Table) -> str:
    """SHA-256 of the rows as text, sorted: the provenance of what was read.

    >>> a = pa.table({"x": [1, 2], "y": ["b", None]})
    >>> rows_sha256(a) == rows_sha256(a.take([1, 0])) != rows_sha256(a.slice(1))
    True
    """
    texts = {
        name: pc.fill_null(table[name].cast(pa.string()), _NULL) for name in table.column_names
    }
    ordered = pa.table(texts).sort_by([(name, "ascending") for name in texts])
    return hash_table(ordered)


def _table(connection: Connection, query: str) -> pa.Table:
    result = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(text(query))
    names = [str(name) for name in result.keys()]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise StorageError(f"The query of source.sql has the column {twins[0]!r} twice.")
    values: list[list[Any]] = [[] for _ in names]
    for part in result.partitions():
        for kept, new in zip(values, zip(*part, strict=True), strict=True):
            kept.extend(new)
    return pa.table({name: _column(kept) for name, kept in zip(names, values, strict=True)})


def _column(values: list[Any]) -> pa.Array:
    """As the database's type; as text where Arrow has none, or values are of several types."""
    try:
        array = pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        return array.cast(pa.timestamp("us", "UTC"))
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return array
