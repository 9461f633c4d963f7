"""A process that has all libraries imported and becomes the run worker or fork server of whoever asks.

Importing Dagster and the training libraries takes seconds of a core, each run anew. A deployment
keeps one process that has paid for them (``zygote_process``); a run's worker and its fork servers are
forked from it, as an application is from Android's zygote, and then import this project's own modules
only.

This is the asking side: when one fits, how it is asked, and a handle on the process that comes of it.
Nobody depends on it: where none answers, a program is started and imports all itself. Linux only, as it
rests on pidfds.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The length of the order, or the process id of the answer.
HEADER = struct.Struct("!I")
GO = b"!"
# Process, user and group, as SO_PEERCRED tells them.
_CREDENTIALS = struct.Struct("3i")
ANSWER_SECONDS = 5.0
_PACKAGES = ("site-packages", "dist-packages")
# What libraries read when they are loaded, or the interpreter when it starts. Thread counts are in
# the socket's name.
_READ_EARLY = tuple(
    "ARROW_ CUDA_ GLIBC_ GOMP_ JE_ KMP_ LANG LC_ LD_ MALLOC_ MKL_ MPL NUMBA_ NVIDIA_ OMP_ OPENBLAS_ PYARROW_ "
    "PYTHON PYTORCH_ TORCH TZ".split()
)
_THREAD_COUNTS = "_NUM_THREADS"


def socket_name(threads: int) -> str:
    """What the socket of a zygote is called, which tells those that fit from those that do not.

    Args:
        threads: that its libraries were told to use.

    Returns:
        A name that changes with the interpreter and with every package that is installed or removed.
    """
    packages = [path for path in map(Path, dict.fromkeys(sys.path)) if path.name in _PACKAGES]
    marks: list[Any] = [sys.prefix, threads]
    for path in (Path(sys.executable), *packages):
        with suppress(OSError):
            marks.append([str(path), path.stat().st_mtime_ns])
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16]


def early_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables that count at the moment of an import, and so must be a zygote's as well."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_EARLY) and not name.endswith(_THREAD_COUNTS)
    }


class Born:
    """A process forked by a zygote: not our child, so waited for by its pidfd.

    Attributes:
        pid: its process id.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd

    def wait(self, timeout: float | None = None) -> None:
        """Return when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired("zygote", timeout or 0.0)

    def kill(self) -> None:
        """Send SIGKILL; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self._pidfd)


@dataclass(frozen=True)
class Zygote:
    """Where to ask.

    Attributes:
        folder: where zygotes have their sockets; it need not be there.
        threads: that the libraries were told to use when they were loaded.
    """

    folder: Path
    threads: int

    def command(self, libraries: Sequence[str]) -> list[str]:
        """The program that answers; for an environment that ``early_variables`` of those who ask equal.

        Args:
            libraries: what it imports.
        """
        module = "resources.zygote_process"
        return [sys.executable, "-m", module, str(self.folder), str(self.threads), *libraries]

    def seems_there(self) -> bool:
        """Whether there is one that fits; a dead one may have left its socket."""
        return (self.folder / socket_name(self.threads)).exists()

    def bear(self, module: str, descriptor: int, environment: Mapping[str, str]) -> Born | None:
        """A process for the other end of a socket; None if no zygote is there that fits.

        Args:
            module: what it is: a module of this project whose ``main`` takes the socket's descriptor.
            descriptor: of the socket; the caller closes its copy.
            environment: the process's, whole.
        """
        order = {
            "module": module,
            "environment": dict(environment),
            "path": inherited_path(),
            "folder": os.getcwd(),
        }
        body = json.dumps(order).encode()
        try:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked,
                short_path(self.folder) as place,
            ):
                asked.settimeout(ANSWER_SECONDS)
                asked.connect(f"{place}/{socket_name(self.threads)}")
                if not is_of_this_user(asked):
                    return None
                socket.send_fds(asked, [HEADER.pack(len(body))], [descriptor, 1, 2])
                asked.sendall(body)
                answer, pidfds, _, _ = socket.recv_fds(asked, HEADER.size, 1)
                if len(answer) < HEADER.size or not pidfds:
                    return None
                # It waits for this word: one that we had given up on must do nothing.
                asked.sendall(GO)
        except OSError:
            # None is there, or it has just ended, or this system has no such sockets.
            return None
        return Born(HEADER.unpack(answer)[0], pidfds[0])


def inherited_path() -> list[str]:
    """The ``sys.path`` of a process that is to import what this one imports.

    The first entry twice: Dagster takes it for the script's folder and removes it once.
    """
    return [*sys.path[:1], *sys.path]


def is_of_this_user(connection: socket.socket) -> bool:
    """Whether the process at the other end of a unix socket is; the environment holds passwords.

    Raises:
        OSError: the kernel cannot say.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.getuid())


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A short name of a folder meanwhile: the address of a socket ends at 107 bytes.

    Raises:
        OSError: it is not there.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
