"""End what a server started, even if it was killed: ``python assets/guard.py MARK``.

A process of its own that waits for its server's end and then ends whatever still bears its mark. Which
processes a server consists of is ``serve``.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress

import psutil

# In the environment of every process that a server started, whoever its parent is by now.
MARK = "SERVED_FOR"
_GRACE_SECONDS = 20.0
_LOOK_SECONDS = 0.5
# Of those who start others while they are being ended.
_ROUNDS = 3


def start_guard(mark: str) -> "subprocess.Popen[bytes]":
    """Start the guard of this process; close its ``stdin`` to dismiss it.

    The kernel closes it when this process dies, however it dies: no child inherits it.
    """
    return subprocess.Popen(
        # By its path: the package imports Dagster.
        [sys.executable, "-P", __file__, mark],
        env={name: value for name, value in os.environ.items() if name != MARK},
        stdin=subprocess.PIPE,
        # Neither the terminal's Ctrl-C nor its end is meant for it.
        start_new_session=True,
    )


def end_marked(mark: str) -> None:
    """End everything that bears the mark, orphans of killed ones too, and wait for it.

    Only those without a marked parent are asked to, as they end their own children in order; those that
    a zygote bore have none when it has ended. What is left after 20 seconds is killed.
    """
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        marked = _marked(mark)
        if not marked:
            return
        for process in marked.values():
            with suppress(psutil.NoSuchProcess):
                if process.ppid() not in marked and process not in asked:
                    asked.add(process)
                    process.terminate()
        psutil.wait_procs(marked.values(), timeout=_LOOK_SECONDS)
    for _ in range(_ROUNDS):
        alive = _marked(mark).values()
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)


def _marked(mark: str) -> "dict[int, psutil.Process]":
    return {process.pid: process for process in psutil.process_iter() if _bears(process, mark)}


def _bears(process: psutil.Process, mark: str) -> bool:
    try:
        # A step may have started the embedded server again; that outlives whoever starts it.
        return process.environ().get(MARK) == mark and process.name() != "postgres"
    except psutil.Error:
        # Somebody else's, or gone.
        return False


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_marked(sys.argv[1])
