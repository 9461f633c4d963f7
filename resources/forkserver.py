"""A process that has paid for its imports once and forks a child for each task: the client's side.

It differs from ``multiprocessing``'s fork server in what an executor needs: several servers with
preloads of their own, starting that nobody waits for, children that never outlive their client, and
a last task that the server runs when the client was killed. It knows nothing of Dagster.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from typing import Any

from resources.zygote import Born, Zygote, inherited_path

# A module of the server's side; named, not imported, since only the server runs it.
_SERVER = "resources.forkserver_process"
_EXIT_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """A function of an importable module and its arguments; both must pickle."""

    function: Callable[..., None]
    arguments: tuple[Any, ...] = ()

    def pickled(self) -> bytes:
        """For the process that will run it; the server in between does not look inside."""
        return pickle.dumps((self.function, self.arguments))


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        pid: its process id, where it got as far as having one.
        code: exit code, negative for a signal; None if the server died with it.
    """

    pid: int | None
    code: int | None

    @property
    def reason(self) -> str:
        """The ending in words."""
        if self.code is None:
            return "the fork server that its process belonged to was killed"
        if self.code >= 0:
            return f"its process (PID {self.pid}) exited with code {self.code}"
        name = signal.Signals(-self.code).name
        hint = " (the kernel does this when memory runs out)" if name == "SIGKILL" else ""
        return f"its process (PID {self.pid}) was killed by {name}{hint}"


@dataclass
class ForkServer:
    """One server process and its children.

    Not for use from several threads. A server that died is started again by the next ``submit``;
    its children died with it.

    Attributes:
        preload: modules to import before the first fork; one that is absent is skipped, with a
            warning on stderr.
        preload_later: modules to import while the first children run and nobody waits.
        environment: variables that differ from the client's own; None removes one.
        warm_up: run in the server after the imports; it must leave no threads and connections.
        last_will: run in a child of the server when the client ended without ``close``.
        grace_seconds: what children get between SIGINT and SIGKILL.
        zygote: where to ask for a process that has its libraries imported; without one, or where none
            answers, the server is a program that imports them itself.
    """

    preload: Sequence[str] = ()
    preload_later: Sequence[str] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    warm_up: Task | None = None
    last_will: Task | None = None
    grace_seconds: float = 3.0
    zygote: Zygote | None = None

    _process: subprocess.Popen[bytes] | Born | None = field(default=None, init=False)
    _connection: Connection[Any, Any] | None = field(default=None, init=False)
    _pids: dict[str, int | None] = field(default_factory=dict, init=False)
    _ended: dict[str, Ended] = field(default_factory=dict, init=False)

    @property
    def origin(self) -> str:
        """Where the server that runs came from, in words; empty if none does."""
        if self._process is None:
            return ""
        how = "born of the zygote" if isinstance(self._process, Born) else "started as a program"
        return f"{how}, PID {self._process.pid}"

    def start(self) -> None:
        """Start the server if it does not run; returns before its imports are done."""
        self._receive()
        if self._connection is not None:
            return
        ours, theirs = Pipe(duplex=True)
        with theirs:
            self._process = self._spawn(theirs.fileno())
        self._connection = ours
        ours.send(
            {
                "preload": list(self.preload),
                "preload_later": list(self.preload_later),
                "warm_up": self.warm_up and self.warm_up.pickled(),
                "last_will": self.last_will and self.last_will.pickled(),
                "grace_seconds": self.grace_seconds,
            }
        )

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes] | Born:
        wanted = {**os.environ, **self.environment}
        environment = {name: value for name, value in wanted.items() if value is not None}
        if self.zygote is not None:
            born = self.zygote.bear(_SERVER, descriptor, environment)
            if born is not None:
                return born
        path = inherited_path()
        code = f"import sys; sys.path[:] = {path!r}; from {_SERVER} import main; main({descriptor})"
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[descriptor],
            # The terminal's Ctrl-C is the client's to handle.
            start_new_session=True,
        )

    def submit(self, key: str, task: Task) -> None:
        """Have a child run the task as soon as the server is ready.

        Args:
            key: the caller's name for the child; a later child may bear it again.
        """
        self.start()
        self._ended.pop(key, None)
        self._pids[key] = None
        self._send(("start", key, task.pickled()))

    def interrupt(self, key: str) -> None:
        """Send SIGINT to a child; nothing happens if it has ended."""
        self._send(("signal", key, signal.SIGINT))

    def kill(self, key: str) -> None:
        """Send SIGKILL to a child; nothing happens if it has ended."""
        self._send(("signal", key, signal.SIGKILL))

    def ended(self, key: str) -> Ended | None:
        """How the child ended; None while it runs or waits for the server.

        Raises:
            KeyError: no child of this name was ever submitted.
        """
        self._receive()
        if key in self._ended:
            return self._ended[key]
        self._pids[key]
        return None

    def close(self) -> None:
        """Let the children end, kill those that outstay the grace, and end the server."""
        if self._connection is None or self._process is None:
            return
        self._send(("close",))
        try:
            self._process.wait(self.grace_seconds + _EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            # Its children have asked the kernel to die with it.
            self._process.kill()
            self._process.wait()
        self._lose_server()

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._connection is None:
            return
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._lose_server()

    def _receive(self) -> None:
        try:
            while self._connection is not None and self._connection.poll():
                kind, key, number = self._connection.recv()
                if kind == "started":
                    self._pids[key] = number
                else:
                    self._ended[key] = Ended(self._pids.pop(key, None), number)
        except (EOFError, ConnectionResetError):
            self._lose_server()

    def _lose_server(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()
        self._connection = self._process = None
        for key, pid in self._pids.items():
            self._ended[key] = Ended(pid, None)
        self._pids.clear()
