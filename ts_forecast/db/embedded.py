"""The private PostgreSQL 18 that serves a deployment without ``DATABASE_URL``.

Starting, joining and stopping it. It listens on a unix socket only, which its user alone may enter.
Making its data folder is ``embedded_cluster``; what is done with the database is nobody's business
here.
"""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from sqlalchemy import URL

from ts_forecast.db.embedded_cluster import SUPERUSER, Cluster
from ts_forecast.errors import DatabaseError, SettingsError
from ts_forecast.settings import Settings

DATABASE = "ts_forecast"
# After a crash the server first replays its log, up to max_wal_size.
_START_SECONDS = 300
_STOP_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_BACKENDS_END_SECONDS = 30.0
# Of postmaster.pid: pid, data folder, start time, port, socket folder, address, memory, status.
_PID, _PORT, _SOCKET_FOLDER, _STATUS = 0, 3, 4, 7


def data_folder(settings: Settings) -> Path:
    """Where the server keeps its data."""
    return settings.home / "postgres"


def start_embedded(settings: Settings) -> str:
    """Start the server, or join it if it runs; it outlives the calling process.

    Safe to call from several processes at once, and after the server was killed. As root the server
    runs as the system user ``pgserver``, which is made if it is absent, and the folders above its
    data are made traversable for it (not readable), since PostgreSQL refuses to run as root.

    Returns:
        The URL of its database ``ts_forecast``, which is created if it is absent.

    Raises:
        DatabaseError: the server does not start; says where its log lies.
        SettingsError: TS_FORECAST_HOME cannot hold one.
    """
    cluster = _cluster(settings)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with _one_starter(settings):
            url = _open(cluster)
    except OSError as error:
        raise DatabaseError(
            f"The embedded PostgreSQL in {cluster.folder} cannot be used: {error}.",
            remedy="TS_FORECAST_HOME has to belong to the user who runs ts-forecast.",
        ) from error
    return url.set(database=DATABASE).render_as_string(hide_password=False)


def running_embedded(settings: Settings) -> str | None:
    """The URL of its database if the server runs; does not start it."""
    return start_embedded(settings) if _postmaster(_cluster(settings).folder) is not None else None


def stop_embedded(settings: Settings) -> bool:
    """Stop the server; whether it was running."""
    cluster = _cluster(settings)
    if not cluster.folder.exists():
        return False
    with _one_starter(settings):
        postmaster = _postmaster(cluster.folder)
        if postmaster is None:
            return False
        # SIGINT is PostgreSQL's fast shutdown: sessions end, everything committed is on disk.
        _end(postmaster, signal.SIGINT)
        cluster.release_socket()
    return True


def _cluster(settings: Settings) -> Cluster:
    folder = data_folder(settings).resolve()
    if "\n" in str(folder):
        raise SettingsError(
            f"PostgreSQL cannot work in {str(folder)!r}: the path holds a line break.",
            remedy="Choose another TS_FORECAST_HOME.",
        )
    return Cluster(folder)


def _open(cluster: Cluster) -> URL:
    """Start or join the server, and see that it answers: one just killed looks alive for a moment."""
    import psycopg

    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        _join_or_start(cluster)
        try:
            url = _url(cluster.folder)
            _ensure_database(url)
            return url
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"The embedded PostgreSQL in {cluster.folder} runs and does not answer: "
                    f"{' '.join(str(error).split())}.",
                    remedy=f"Read {cluster.folder / 'log'}.",
                ) from error
            time.sleep(0.05)


def _join_or_start(cluster: Cluster) -> None:
    folder = cluster.folder
    deadline = time.monotonic() + _START_SECONDS
    while _postmaster(folder) is not None:
        # A server that is starting or stopping is waited for.
        if _pid_line(folder, _STATUS) == "ready":
            return
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"The embedded PostgreSQL in {folder} does not become ready.",
                remedy=f"Read {folder / 'log'}.",
            )
        time.sleep(0.02)
    if not cluster.is_initialized:
        # Of a folder that was removed beneath its server.
        for left in _servers(folder):
            _end(left, signal.SIGQUIT)
        cluster.initialize()
    deadline = time.monotonic() + _BACKENDS_END_SECONDS
    _clear_crash(folder, deadline)
    while True:
        try:
            cluster.start(_START_SECONDS)
            return
        except DatabaseError as error:
            # Backends of a killed server that we may not see.
            if "pre-existing shared memory" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _clear_crash(folder: Path, deadline: float) -> None:
    """Make a killed server startable: wait for its backends, then drop its pid files.

    Where nothing reaps orphans (a container's PID 1), the dead postmaster stays a zombie and
    PostgreSQL takes it for alive. They may go only when no backend is left: they keep a
    second server off their shared memory.
    """
    pid_file = folder / "postmaster.pid"
    if not pid_file.exists():
        return
    while _servers(folder):
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"Backends of a killed server still use {folder}.",
                remedy="Find them with `ps` and end them.",
            )
        time.sleep(0.1)
    if socket_folder := _pid_line(folder, _SOCKET_FOLDER):
        # The socket has a pid file of its own.
        lock = folder / socket_folder / f".s.PGSQL.{_pid_line(folder, _PORT)}.lock"
        lock.unlink(missing_ok=True)
    pid_file.unlink(missing_ok=True)


def _postmaster(folder: Path) -> psutil.Process | None:
    """The live postmaster of this folder; None after a crash or a stop."""
    try:
        process = psutil.Process(int(_pid_line(folder, _PID)))
        # After a reboot the number may be another process's, another PostgreSQL's even.
        return process if _is_server(process) and _folder_of(process) in (folder, None) else None
    except (ValueError, psutil.NoSuchProcess):
        return None


def _servers(folder: Path) -> list[psutil.Process]:
    """Everything of PostgreSQL that is known to work in this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if _is_server(process) and _folder_of(process) == folder:
                found.append(process)
    return found


def _is_server(process: psutil.Process) -> bool:
    return process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE


def _folder_of(process: psutil.Process) -> Path | None:
    """Where it works, which for a server process is its data; None if we may not know.

    Root in a container may lack the right (CAP_SYS_PTRACE) to look at another user's process.
    """
    try:
        return Path(process.cwd())
    except psutil.AccessDenied:
        return None


def _end(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
        deadline = time.monotonic() + _STOP_SECONDS
        # Not wait(): where nothing reaps orphans it stays a zombie.
        while _is_server(process):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.02)


def _pid_line(folder: Path, number: int) -> str:
    """A line of postmaster.pid; empty if it is not there (yet)."""
    try:
        lines = (folder / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[number].strip() if len(lines) > number else ""


def _url(folder: Path) -> URL:
    query = {
        "host": str(folder / _pid_line(folder, _SOCKET_FOLDER)),
        "port": _pid_line(folder, _PORT),
    }
    return URL.create("postgresql+psycopg", SUPERUSER, database="postgres", query=query)


def _ensure_database(url: URL) -> None:
    import psycopg
    from psycopg import sql

    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, connect_timeout=10, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if found.fetchone() is None:
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


@contextmanager
def _one_starter(settings: Settings) -> Iterator[None]:
    """One process at a time; the kernel releases the lock of a killed one."""
    with (settings.home / "postgres.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
