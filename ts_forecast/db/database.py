"""The deployment's database: the server of ``DATABASE_URL``, or the embedded one.

One code path after this. Dagster's own tables live in the same database, in the schema ``dagster``:
it has a table ``runs`` too.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from ts_forecast.db.embedded import start_embedded
from ts_forecast.db.engine import create_engine
from ts_forecast.errors import DatabaseError
from ts_forecast.settings import Settings

DAGSTER_SCHEMA = "dagster"


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        engine: the pool; dispose of it when done.
        read_engine: for what people read: read-only, and on the replica of DATABASE_READ_URL where
            there is one, so behind the other by a moment. Never within a unit of work, and never for
            what was just written.
        url: for processes that open it themselves; holds the password.
        dagster_url: the same database for Dagster's storage, on psycopg2 (design: with a plain
            ``postgresql://`` Dagster picks psycopg 3 and dies on its first NOTIFY).
    """

    engine: Engine
    read_engine: Engine
    url: SecretStr
    dagster_url: SecretStr

    @property
    def address(self) -> str:
        """Where it is, without the password."""
        return make_url(self.url.get_secret_value()).render_as_string(hide_password=True)

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self.read_engine.dispose()


def open_database(settings: Settings, *, application_name: str = "ts-forecast") -> Database:
    """Open the database of the settings, starting the embedded server if that is the one.

    Raises:
        DatabaseError: no server answers, or it may not be written to; says which was tried.
    """
    given = settings.database_url
    url = given.get_secret_value() if given is not None else start_embedded(settings)
    engine = create_engine(url, settings, application_name=application_name)
    replica = settings.database_read_url
    database = Database(
        engine=engine,
        read_engine=create_engine(
            replica.get_secret_value() if replica is not None else url,
            settings,
            application_name=f"{application_name} (reading)",
            read_only=True,
        ),
        url=SecretStr(url),
        dagster_url=SecretStr(_dagster_url(url)),
    )
    try:
        with engine.begin() as connection:
            _ensure_dagster_schema(connection)
    except OperationalError as error:
        engine.dispose()
        raise DatabaseError(
            f"The database at {database.address} does not answer: {_first_line(error)}.",
            remedy="Check DATABASE_URL, or unset it to use the embedded server.",
        ) from error
    except DBAPIError as error:
        engine.dispose()
        raise DatabaseError(
            f"The database at {database.address} refuses the schema {DAGSTER_SCHEMA}: "
            f"{_first_line(error)}.",
            remedy=f"Have its owner run: CREATE SCHEMA {DAGSTER_SCHEMA} AUTHORIZATION <your role>;",
        ) from error
    return database


def _ensure_dagster_schema(connection: Connection) -> None:
    # CREATE … IF NOT EXISTS still races and needs a right that readers lack: look first.
    found = connection.scalar(
        text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": DAGSTER_SCHEMA}
    )
    if found is None:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ts_forecast.schema'))"))
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {DAGSTER_SCHEMA}"))


def _dagster_url(url: str) -> str:
    parsed = make_url(url).set(drivername="postgresql+psycopg2")
    # The last search_path counts.
    options = [*parsed.normalized_query.get("options", ()), f"-csearch_path={DAGSTER_SCHEMA}"]
    complete = parsed.update_query_dict({"options": " ".join(options)})
    return complete.render_as_string(hide_password=False)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]
