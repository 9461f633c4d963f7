"""Serve the UI: ``python -m assets.serve``.

One process that starts the webserver and the daemon, watches over both and over the embedded
PostgreSQL, and ends all of them with itself. What they serve is ``definitions``.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import dagster as dg
import psutil
import requests
import typer
from rich.console import Console

from resources.gpu_executor import ensure_pool_limits
from resources.instance import dagster_environment, prepare_dagster_home
from ts_forecast.db.database import open_database
from ts_forecast.db.migrate import upgrade
from ts_forecast.errors import DatabaseError, TsForecastError
from ts_forecast.settings import Settings, load_settings

_ROOT = Path(__file__).resolve().parents[1]
_WATCH_SECONDS = 1.0
_START_SECONDS = 120
_GRACE_SECONDS = 20
# A child that keeps dying is not started for ever.
_MOST_RESTARTS = 5
_log = logging.getLogger(__name__)


def serve(settings: Settings, *, host: str, port: int, console: Console) -> int:
    """Serve until a signal comes; the exit code.

    The database is migrated first. A webserver or daemon that dies is started again, at most five
    times each; the embedded PostgreSQL whenever it is gone.

    Raises:
        DatabaseError: the database cannot be opened.
    """
    environment = _prepare(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    workspace = ["-w", str(_ROOT / "workspace.yaml")]
    commands = {
        "webserver": ["dagster_webserver", "-h", host, "-p", str(port), *workspace],
        "daemon": ["dagster._daemon", "run", *workspace],
    }
    children: dict[str, subprocess.Popen[bytes]] = {}
    restarts = dict.fromkeys(commands, 0)
    announcer = threading.Thread(
        target=_announce, args=(f"http://{host}:{port}", stop, console), daemon=True
    )
    announcer.start()
    try:
        while not stop.wait(_WATCH_SECONDS if children else 0):
            for name, command in commands.items():
                child = children.get(name)
                if child is not None and child.poll() is None:
                    continue
                if child is not None:
                    restarts[name] += 1
                    if restarts[name] > _MOST_RESTARTS:
                        console.print(f"[red]The {name} keeps dying; see its messages above.[/red]")
                        return 1
                    _log.warning("the %s ended with %s; starting it again", name, child.returncode)
                children[name] = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    cwd=_ROOT,
                    env=environment,
                    # A group of its own: a Ctrl-C in the terminal reaches us alone, and we end it.
                    start_new_session=True,
                )
            _keep_database(settings)
        return 0
    finally:
        _end(list(children.values()))


def _prepare(settings: Settings) -> dict[str, str]:
    """Database migrated, Dagster's home written, pools sized; the children's environment."""
    database = open_database(settings)
    upgrade(database.engine)
    environment = os.environ | dagster_environment(settings, database)
    os.environ.update(environment)
    prepare_dagster_home(settings, database.dagster_url)
    with dg.DagsterInstance.get() as instance:
        ensure_pool_limits(instance, settings)
    database.engine.dispose()
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


def _announce(address: str, stop: threading.Event, console: Console) -> None:
    """Say where the UI is, once it answers."""
    deadline = time.monotonic() + _START_SECONDS
    while not stop.wait(0.5) and time.monotonic() < deadline:
        try:
            if requests.get(f"{address}/server_info", timeout=5).ok:
                console.print(f"\n[bold green]Dagster UI: {address}[/bold green]  (Ctrl-C ends it)")
                return
        except requests.RequestException:
            continue
    if not stop.is_set():
        console.print(f"[red]The UI does not answer at {address}.[/red]")


def _end(children: list["subprocess.Popen[bytes]"]) -> None:
    """End the children and all that they started, by PID."""
    tree: list[psutil.Process] = []
    for child in children:
        try:
            parent = psutil.Process(child.pid)
            tree += [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=_GRACE_SECONDS)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)


def main(
    port: Annotated[int, typer.Option(help="Port of the webserver.", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the Dagster UI with its daemon, until Ctrl-C."""
    console = Console()
    try:
        code = serve(load_settings(), host=host, port=port, console=console)
    except TsForecastError as error:
        Console(stderr=True).print(f"[red]{error}[/red]", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
