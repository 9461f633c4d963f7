"""What tests have done side by side; importable, since other processes do it too."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from sqlalchemy import Engine, text

from ts_forecast.errors import TrainingError
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.side_by_side import Tell


def done(notes: Path) -> list[tuple[str, int]]:
    """The quarters that were begun, and in which process, in order."""
    if not notes.exists():
        return []
    lines = (line.split() for line in notes.read_text().splitlines())
    return [(label, int(pid)) for label, pid in lines]


def work(
    notes: Path, conduct: str, engine: Engine, settings: Settings, quarter: Quarter, tell: Tell
) -> str:
    """Note who does the quarter; the step waits with its first one until it has seen others begun.

    Args:
        conduct: of other processes than the step's: ``well``, ``fails``, ``dies``, ``stays``; or the
            step does its quarters ``slowly``, so that there is time for help.
    """
    with engine.connect() as connection:
        name = connection.scalar(text("SELECT current_setting('application_name')"))
    with notes.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{quarter.label} {os.getpid()}\n")
    if name != "ts-forecast (beside)":
        wait_until(lambda: len({pid for _, pid in done(notes)}) > 1)
        if conduct == "stays":
            raise TrainingError("The step's own quarter is at fault.")
        if conduct == "slowly":
            time.sleep(1)
    elif conduct == "fails":
        raise TrainingError("Only beside.")
    elif conduct == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif conduct == "stays":
        time.sleep(120)
    else:
        tell(quarter, f"halfway through {quarter.label}")
        time.sleep(0.5)
    return f"{quarter.label} of {settings.home.name}"


def wait_until(condition: object, seconds: float = 60.0) -> None:
    """Return when the condition holds, or the time is over."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.05)
