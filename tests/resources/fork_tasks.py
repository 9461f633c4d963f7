"""Tasks for the fork server's tests; importable, since other processes run them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from resources.forkserver import ForkServer, Task
from resources.zygote import Zygote


def write(path: str, text: str) -> None:
    """Write a file, whole or not at all."""
    draft = Path(f"{path}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def write_pid_and_stay(path: str, *, deaf: bool = False) -> None:
    """Note the process id, then stay until ended."""
    write(path, str(os.getpid()))
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            if not deaf:
                raise


def write_pid_and_stay_deaf(path: str) -> None:
    """The same, without regard for SIGINT."""
    write_pid_and_stay(path, deaf=True)


def note_module_and_stay(path: str, name: str) -> None:
    """Note whether a module is loaded, then stay until ended."""
    write(path, str(name in sys.modules))
    time.sleep(60)


def start_program_and_end(path: str) -> None:
    """Leave a program behind."""
    write(path, str(subprocess.Popen(["sleep", "300"]).pid))


def exit_with(code: int) -> None:
    """End with an exit code."""
    sys.exit(code)


def describe_server(path: str) -> None:
    """Note the server's threads and what it has loaded."""
    import torch

    threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
    write(path, f"{threads} {'neuralforecast' in sys.modules} {torch.cuda.is_initialized()}")


def describe_process(path: str) -> None:
    """Note what a process has of whoever started it; ``read`` reads it."""
    import __main__

    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass
    told = {
        "colorsys": "colorsys" in sys.modules,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": sys.path,
        "arguments": sys.argv,
        "main": [__main__.__name__, getattr(__main__, "__file__", None)],
        "standard": [descriptors[number] for number in (0, 1, 2)],
        "signals": {
            name: str(signal.getsignal(getattr(signal, name)))
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGPIPE")
        },
        "session_is_the_servers": os.getsid(0) == os.getppid(),
        "threads": len(os.listdir("/proc/self/task")),
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, set())),
    }
    write(path, json.dumps(told))


def read(path: Path) -> dict[str, Any]:
    """What ``describe_process`` has noted."""
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def note_attribute(path: str, module: str, name: str) -> None:
    """Note a module's attribute."""
    write(path, str(getattr(importlib.import_module(module), name, None)))


def be_a_client(folder: str) -> None:
    """Start a server with a child, as a client that the test will kill."""
    server = ForkServer(last_will=Task(write, (f"{folder}/will", "done")))
    server.submit("child", Task(write_pid_and_stay, (f"{folder}/child",)))
    write(f"{folder}/server", str(server._process.pid if server._process else 0))
    time.sleep(60)


def ask(zygote: Zygote, path: str) -> None:
    """Ask for a server as a step does that has imported the libraries."""
    import neuralforecast  # noqa: F401

    server = ForkServer(zygote=zygote)
    server.start()
    Path(path).write_text(server.origin)
    server.close()
