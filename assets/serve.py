"""Serve the UI: ``python -m assets.serve``.

One process that starts the webserver, the daemon and the zygote that runs' processes are born of,
watches over them and over the embedded PostgreSQL, and ends all of them with itself; if it is killed,
``guard`` does. What they serve is ``definitions``.
"""

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer
from rich.console import Console
from rich.text import Text

from assets.guard import MARK, end_marked, start_guard
from resources.gpu_pool import ensure_pool_limits
from resources.instance import dagster_environment, prepare_dagster_home
from resources.preloads import ZYGOTE_LIBRARIES, process_environment, zygote_of
from ts_forecast.commands.serving import announce, require_port
from ts_forecast.db.database import open_database
from ts_forecast.db.migrate import upgrade
from ts_forecast.errors import DatabaseError, TsForecastError
from ts_forecast.logs.setup import install
from ts_forecast.settings import Settings, load_settings

_ROOT = Path(__file__).resolve().parents[1]
_WATCH_SECONDS = 1.0
# A child that dies more often than this is not started again.
_MOST_RESTARTS = 5
_RESTART_WINDOW_SECONDS = 600.0
_ZYGOTE_SECONDS = 15.0
_log = logging.getLogger(__name__)


@dataclass
class _Child:
    """A program that is kept running.

    Attributes:
        is_needed: without it there is nothing to serve.
        not_before: when it is started first, on the monotonic clock.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    is_needed: bool = True
    not_before: float = 0.0
    process: "subprocess.Popen[bytes] | None" = None
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_RESTARTS))

    def keep(self) -> bool:
        """Start it if it does not run; False if it keeps dying."""
        now = time.monotonic()
        if now < self.not_before:
            return True
        if self.process is not None:
            if self.process.poll() is None:
                return True
            if len(self.restarts) == _MOST_RESTARTS and (
                now - self.restarts[0] < _RESTART_WINDOW_SECONDS
            ):
                return False
            self.restarts.append(now)
            code = self.process.returncode
            _log.warning("the %s ended with %s; starting it again", self.name, code)
        self.process = subprocess.Popen(
            self.command,
            cwd=_ROOT,
            env=self.environment,
            # A group of its own: a Ctrl-C in the terminal reaches us alone, and we end it.
            start_new_session=True,
        )
        return True


def serve(
    settings: Settings, *, host: str, port: int, console: Console, quiet: bool = False
) -> int:
    """Serve until a signal comes, or the command that started us is killed; the exit code.

    The database is migrated first. A child that dies is started again, at most five times in ten
    minutes each; without a webserver or a daemon there is nothing to serve, and without a zygote runs
    import what they need themselves. The embedded PostgreSQL is started whenever it is gone.

    Args:
        quiet: say nothing but errors, for a command that has the terminal for itself.

    Raises:
        SettingsError: the port is taken.
        DatabaseError: the database cannot be opened.
    """
    stop = threading.Event()
    # From here on: nothing that a signal interrupts may leave a process behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    require_port(host, port)
    environment = _prepare(settings)
    guard = start_guard(environment[MARK])
    workspace = ("-w", str(_ROOT / "workspace.yaml"))
    code_servers = _level("--code-server-log-level", quiet)
    webserver = [sys.executable, "-m", "dagster_webserver", "-h", host, "-p", str(port), *workspace]
    webserver += [*code_servers, *_level("--dagster-log-level", quiet)]
    daemon = [sys.executable, "-m", "resources.daemon", "run", *workspace]
    daemon += [*code_servers, *_level("--log-level", quiet)]
    children = [
        _Child("webserver", webserver, environment),
        _Child("daemon", daemon, environment),
        *_zygotes(settings, environment),
    ]
    if not quiet:
        announcer = threading.Thread(
            target=announce, args=(_address(host, port), console, stop.wait), daemon=True
        )
        announcer.start()
    try:
        while not stop.is_set() and not _is_orphan():
            for child in [child for child in children if not child.keep()]:
                children.remove(child)
                words = f"The {child.name} keeps dying; see its messages above."
                console.print(words, style="red" if child.is_needed else "yellow")
                if child.is_needed:
                    return 1
            _keep_database(settings)
            stop.wait(_WATCH_SECONDS)
        return 0
    finally:
        stop.set()
        end_marked(environment[MARK])
        guard.communicate()


def _zygotes(settings: Settings, environment: dict[str, str]) -> list[_Child]:
    """The zygote of this host, where runs start their steps on it and it can exist."""
    if settings.executor != "local" or not hasattr(os, "pidfd_open"):
        return []
    zygote = zygote_of(settings)
    early = environment | process_environment(zygote.threads)
    # Until then the cores are for the webserver and for those who load the definitions.
    later = time.monotonic() + _ZYGOTE_SECONDS
    command = zygote.command(ZYGOTE_LIBRARIES)
    return [_Child("zygote", command, early, is_needed=False, not_before=later)]


def _level(option: str, quiet: bool) -> tuple[str, ...]:
    return (option, "error") if quiet else ()


def _is_orphan() -> bool:
    """Whether the command that started us is gone: nobody would pass on a signal."""
    starter = os.environ.get("STARTED_BY")
    return starter is not None and starter != str(os.getppid())


def _prepare(settings: Settings) -> dict[str, str]:
    """Database migrated, Dagster's home written, pools sized; the children's environment."""
    database = open_database(settings)
    try:
        upgrade(database.engine)
        environment = os.environ | dagster_environment(settings, database)
        os.environ.update(environment)
        prepare_dagster_home(settings, database.dagster_url)
        with dg.DagsterInstance.get() as instance:
            ensure_pool_limits(instance, settings)
    finally:
        database.engine.dispose()
    environment[MARK] = secrets.token_hex(16)
    # The code location is loaded from the root of the repository, wherever we were called.
    environment["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(_ROOT), os.environ.get("PYTHONPATH")) if part
    )
    return environment


def _keep_database(settings: Settings) -> None:
    """Start the embedded server again if it is gone; joining it takes 15 ms."""
    if settings.database_url is not None:
        return
    try:
        open_database(settings).engine.dispose()
    except DatabaseError as error:
        _log.error("%s", error)


def _address(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"


def main(
    port: Annotated[int, typer.Option(help="Port of the webserver.", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Serve the Dagster UI with its daemon, until Ctrl-C."""
    console = Console()
    try:
        settings = load_settings()
        install(settings)
        code = serve(settings, host=host, port=port, console=console, quiet=quiet)
    except TsForecastError as error:
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
