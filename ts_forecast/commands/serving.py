"""``ts-forecast dev``, ``materialize`` and ``backfill``: Dagster's side, each in a process of its own.

``ts_forecast`` does not import Dagster; the modules of ``assets`` that these start do. What these and
the server share about its address stands here too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from ts_forecast.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

_START_SECONDS = 120


def dev(
    port: Annotated[int, typer.Option(help="Port of the UI.", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the Dagster UI and daemon on a migrated database, until Ctrl-C."""
    raise typer.Exit(run_module("assets.serve", "--port", str(port), "--host", host))


def materialize(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline file.")],
    first: Annotated[str, typer.Option("--from", help="First quarter, e.g. 2024-Q1.")],
    last: Annotated[str, typer.Option("--to", help="Last quarter, included.")],
    force: Annotated[bool, typer.Option(help="Repeat work that is on record.")] = False,
) -> None:
    """Materialize all assets of a pipeline over a range of quarters, with a progress bar."""
    arguments = [pipeline, "--from", first, "--to", last, *(["--force"] if force else [])]
    raise typer.Exit(run_module("assets.materialize", *arguments))


def backfill(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline file.")],
    first: Annotated[str, typer.Option("--from", help="First quarter, e.g. 2023-Q1.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last quarter, included.")] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Only what is missing or failed; joins one under way.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel those of the pipeline that are under way.")
    ] = False,
    server: Annotated[
        str, typer.Option(help="Address of the running `ts-forecast dev`.")
    ] = "http://127.0.0.1:3000",
) -> None:
    """Backfill a pipeline through the running deployment, as the UI does, with a progress bar."""
    ends = [*(["--from", first] if first else []), *(["--to", last] if last else [])]
    flags = [*(["--resume"] if resume else []), *(["--cancel"] if cancel else [])]
    arguments = (pipeline, *ends, *flags, "--server", server)
    raise typer.Exit(run_module("assets.backfill_command", *arguments))


def run_module(module: str, *arguments: str, **environment: str) -> int:
    """Run a module of this installation in the foreground; see ``in_foreground``."""
    return in_foreground(start_module(module, *arguments, **environment))


def start_module(module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a module of this installation; it finds our PID as ``STARTED_BY``."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"STARTED_BY": str(os.getpid())} | environment,
    )


def in_foreground(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child as if it were this process; its exit code, 130 if Ctrl-C ended it.

    Ctrl-C reaches the child through the terminal; this process waits for its orderly end. A SIGTERM
    reaches this process alone, and is passed on. A SIGKILL cannot be: the child looks for its starter.
    """
    was_interrupted = False
    previous = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        while True:
            try:
                code = child.wait()
                break
            except KeyboardInterrupt:
                was_interrupted = True
    finally:
        signal.signal(signal.SIGTERM, previous)
    if was_interrupted and code != 0:
        # Dagster calls the interrupted step failed, and ends with 1.
        return 128 + signal.SIGINT
    # A shell's way to say which signal it was.
    return code if code >= 0 else 128 - code


def require_port(host: str, port: int) -> None:
    """See that nobody listens there yet.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's.
    """
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise SettingsError(
            f"The UI cannot listen on {host}:{port}: {error.strerror}.",
            remedy="End what listens there, or choose another with --port.",
        ) from None


def announce(address: str, console: Console, is_over: Callable[[float], bool]) -> None:
    """Say where the UI is, once it answers.

    Args:
        is_over: waits so many seconds; whether there is nothing to wait for any more.
    """
    import requests

    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(requests.RequestException):
            if requests.get(f"{address}/server_info", timeout=5).ok:
                console.print(f"\n[bold green]Dagster UI: {address}[/bold green]  (Ctrl-C ends it)")
                return
        if is_over(0.5):
            return
    console.print(f"The UI does not answer at {address}.", style="red")
