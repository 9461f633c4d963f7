"""The PostgreSQL resource: where Dagster's assets meet the database and the deployment's settings.

Opening and closing only. What is written, and in which transaction, is decided in ``ts_forecast``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from sqlalchemy import Engine

from ts_forecast.db.database import Database, open_database
from ts_forecast.settings import Settings


@dataclass(frozen=True)
class Postgres:
    """One step's connection pool and the settings that it was opened with."""

    database: Database
    settings: Settings

    @property
    def engine(self) -> Engine:
        """The pool; ``ts_forecast.db.engine.transaction`` is its only commit, ``db.retry`` on top of it."""
        return self.database.engine


def postgres_resource(settings: Settings) -> dg.ResourceDefinition:
    """The resource under the key ``postgres``.

    Each step opens its own pool and disposes of it at its end. The embedded server is started if
    it does not run, so that a step survives a server that was killed before it.
    """

    @dg.resource(description="PostgreSQL: DATABASE_URL, or the embedded server where it is unset.")
    def postgres(_context: dg.InitResourceContext) -> Iterator[Postgres]:
        database = open_database(settings)
        try:
            yield Postgres(database=database, settings=settings)
        finally:
            database.dispose()

    return postgres
