"""The fork server's own process: import, then fork a child for each request.

Single-threaded, without connections and without CUDA, as all of these break in a forked child. Ends
when its client says so or dies, and takes its children with it; the kernel takes them when the
server is killed. The client's side is ``forkserver``.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Never

_PR_SET_PDEATHSIG = 1
# What a shell says of a program that SIGINT ended.
_INTERRUPTED = 130
_LAST_WILL = "last will"
_LAST_WILL_SECONDS = 30.0
# So long nobody has asked for a step: then an import keeps none waiting.
_IDLE_SECONDS = 1.0


def main(descriptor: int) -> None:
    """Serve the client at the other end of a socket until it closes or dies."""
    connection: Connection[Any, Any] = Connection(descriptor)
    order = connection.recv()
    # Imports leave next to nothing to collect, and looking for it takes a fifth of their time.
    gc.disable()
    for name in order["preload"]:
        preload(name)
    if order["warm_up"] is not None:
        try:
            _call(order["warm_up"])
        except Exception:  # noqa: BLE001 — a child that meets the same error reports it properly
            traceback.print_exc()
    _freeze()
    gc.enable()
    server = _Server(connection, order["grace_seconds"], order["preload_later"])
    server.serve(order["last_will"])
    # The client waits: leave out taking the imported libraries apart.
    os._exit(0)


def preload(name: str) -> None:
    """Import a module; one that is absent is skipped, with a warning on stderr."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"fork server: {name} is not preloaded: {error}", file=sys.stderr)


def _freeze() -> None:
    """Keep the collector from writing to the pages that the children share."""
    gc.collect()
    gc.freeze()


class _Server:
    def __init__(
        self, connection: Connection[Any, Any], grace_seconds: float, later: list[str]
    ) -> None:
        self._connection = connection
        self._later = later
        self._grace_seconds = grace_seconds
        self._children: dict[int, str] = {}
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)

    def serve(self, last_will: bytes | None) -> None:
        while True:
            is_pending = bool(self._children and self._later)
            if not self._wait(_IDLE_SECONDS if is_pending else None, for_client=True):
                # Children are at work and nobody waits: the time for what only later ones need.
                preload(self._later.pop(0))
                if not self._later:
                    _freeze()
                continue
            if not self._connection.poll():
                continue
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._interrupt_all()
                self._end_children()
                if last_will is not None:
                    self._fork(_LAST_WILL, last_will)
                    self._grace_seconds = _LAST_WILL_SECONDS
                    self._end_children()
                return
            match message:
                case ("start", key, task):
                    self._fork(key, task)
                case ("signal", key, number):
                    self._signal(key, number)
                case ("close",):
                    self._end_children()
                    return

    def _wait(self, seconds: float | None, *, for_client: bool = False) -> bool:
        """Wait for a child's end, or for the client, and reap the dead; whether anything happened."""
        sources: list[Connection[Any, Any] | int] = [self._wake_read]
        if for_client:
            sources.append(self._connection)
        is_over = not wait(sources, seconds)
        with suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass
        while self._children:
            # Looked at before it is reaped: as long as it is a zombie, its group is its own.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                break
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            key = self._children.pop(ended.si_pid, None)
            if key is not None:
                self._report("ended", key, os.waitstatus_to_exitcode(status))
        return not is_over

    def _fork(self, key: str, task: bytes) -> None:
        server = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back until the child has handlers of its own; else an early SIGINT would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pid = os.fork()
        if pid == 0:
            self._become_child(server, task)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._children[pid] = key
        self._report("started", key, pid)

    def _become_child(self, server: int, task: bytes) -> Never:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for restored in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(restored, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._connection.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            # A group of its own, so that what it starts can be ended with it.
            os.setpgid(0, 0)
            die_with_parent(server)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            _call(task)
            code = 0
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 — nothing above could handle it
            traceback.print_exc()
        finally:
            # Not sys.exit: the frames above belong to the server.
            with suppress(BaseException):
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _signal(self, key: str, number: int) -> None:
        for pid, name in self._children.items():
            if name == key:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _interrupt_all(self) -> None:
        for key in set(self._children.values()):
            self._signal(key, signal.SIGINT)

    def _end_children(self) -> None:
        """Return when all children have ended, killing those that outstay the grace."""
        deadline = time.monotonic() + self._grace_seconds
        while self._children:
            left = deadline - time.monotonic()
            if left <= 0:
                for pid in self._children:
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
            self._wait(max(left, 0.05))

    def _report(self, kind: str, key: str, number: int) -> None:
        # A client that has died reads nothing; serve() sees the end of its stream.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send((kind, key, number))


def _call(task: bytes) -> None:
    function, arguments = pickle.loads(task)  # noqa: S301 — from our own client, on a private socket
    function(*arguments)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux only)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It ended before the call.
        os._exit(1)
