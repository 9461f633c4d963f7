"""What tests have run on a lent slot."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ts_forecast.slots import Turn


def note_and_wait(turn: Turn, note: Path, go: Path) -> None:
    """Say where this runs, then wait for a file."""
    part = note.with_suffix(".part")
    part.write_text(f"{turn.name} threads {os.environ['OMP_NUM_THREADS']}")
    part.rename(note)
    while not go.exists():
        time.sleep(0.02)


def note_and_stay(turn: Turn, note: Path) -> None:
    """Say where this runs and stay, whoever asks it to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    note.write_text(turn.name)
    time.sleep(120)
