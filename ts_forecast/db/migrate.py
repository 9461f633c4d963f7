"""Upgrading the schema: Alembic, in process.

The migrations lie in ``migrations/`` beside the packages; their environment takes an advisory lock, so
that several processes may call ``upgrade`` at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ts_forecast.db.roles import ensure_roles
from ts_forecast.errors import DatabaseError

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Revision:
    """One step of the schema's history."""

    revision: str
    summary: str
    is_current: bool
    file: str


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to a revision; a schema that is there already is left alone.

    At the newest revision the roles are made and granted what they need, as far as this login may.

    Raises:
        DatabaseError: the revision is unknown, or PostgreSQL refused; the schema stands as it did
            before the step that failed.
    """
    if revision == "head" and current(engine) == head():
        return
    _run(engine, lambda config: command.upgrade(config, revision))
    if current(engine) == head():
        with engine.begin() as connection:
            ensure_roles(connection)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the schema back to a revision (``base``: no tables). What they held is lost.

    Raises:
        DatabaseError: as ``upgrade``.
    """
    _run(engine, lambda config: command.downgrade(config, revision))


def current(engine: Engine) -> str | None:
    """The database's revision; None if it has no tables of ours."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The newest revision that this version of the code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def history(engine: Engine) -> list[Revision]:
    """Every revision, newest first."""
    here = current(engine)
    return [
        Revision(
            script.revision,
            (script.doc or "").splitlines()[0],
            script.revision == here,
            Path(script.path).name,
        )
        for script in ScriptDirectory.from_config(_config()).walk_revisions()
    ]


def check_revision(engine: Engine) -> None:
    """Refuse to work on a schema that is not this version's.

    Raises:
        DatabaseError: it is older, newer or absent.
    """
    found, wanted = current(engine), head()
    if found == wanted:
        return
    known = {step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseError(
            f"The database's schema is at revision {found}, which this version does not know.",
            remedy=f"Install the version of ts-forecast that made it; this one ends at {wanted}.",
        )
    raise DatabaseError(
        f"The database's schema is at revision {found or 'none'}, this version needs {wanted}.",
        remedy="Run `ts-forecast db upgrade`.",
    )


def _config() -> Config:
    folder = _ROOT / "migrations"
    if not folder.is_dir():
        raise DatabaseError(
            f"There are no migrations in {folder}.",
            remedy="Install ts-forecast from a clone with `pip install -e .`, as `make` does.",
        )
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _run(engine: Engine, action: Callable[[Config], None]) -> None:
    config = _config()
    config.attributes["connection"] = engine
    try:
        action(config)
    except CommandError as error:
        raise DatabaseError(
            f"Alembic refused: {error}.", remedy="See `ts-forecast db history`."
        ) from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise DatabaseError(
            f"PostgreSQL refused the migration: {reason}.",
            remedy="If a lock timed out, end long transactions (pg_stat_activity) and try again.",
        ) from error
