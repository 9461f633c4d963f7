"""The worker of a run that a zygote bore: what ``dagster api execute_run`` does, imports already paid.

The process's side; ``run_launcher`` asks for it and says when it may begin.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from dagster._cli.api import execute_run_command
from dagster._utils.interrupts import capture_interrupts

from resources.run_launcher import READY, hold_run
from ts_forecast.settings import load_settings


def main(descriptor: int) -> None:
    """Execute the run that the launcher at the other end of a socket names.

    Does nothing if the launcher has gone or given up: another process may have the run then. An
    interruption counts from here on, however early it comes.
    """
    launcher: Connection[Any, Any] = Connection(descriptor)
    with capture_interrupts():
        with launcher:
            try:
                launcher.send(READY)
                run_id, arguments = launcher.recv()
            except (EOFError, OSError):
                return
            hold_run(load_settings(), run_id)
        execute_run_command.main([arguments], prog_name="execute_run", standalone_mode=False)
