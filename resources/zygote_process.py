"""The zygote's own process: ``python -m resources.zygote_process FOLDER THREADS MODULE…``.

Imports libraries and none of this project's modules, so that an edit of those needs no new zygote; then
forks a fork server or a run's worker for each that asks on its socket. When a package was installed or
removed it starts itself again. Single-threaded, like every process that forks. The asking side is
``zygote``.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Never

from resources.forkserver_process import die_with_parent, preload
from resources.zygote import (
    ANSWER_SECONDS,
    GO,
    HEADER,
    early_variables,
    is_of_this_user,
    short_path,
    socket_name,
)

_LOOK_SECONDS = 30.0
_OWN = ("resources", "assets", "ts_forecast")


def main(folder: Path, threads: int, libraries: list[str]) -> None:
    """Import, then serve until a signal comes or whoever started this process ends.

    Raises:
        OSError: the folder takes no socket.
    """
    die_with_parent(os.getppid())
    name, before = socket_name(threads), early_variables(os.environ)
    with _listening(folder, f"{name}.{os.getpid()}") as (listener, draft):
        # Imports leave next to nothing to collect, and looking for it takes a fifth of their time.
        gc.disable()
        for library in libraries:
            preload(library)
        gc.collect()
        gc.freeze()
        gc.enable()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        # From here on it is found.
        draft.rename(folder / name)
        # Libraries set some themselves; who asks may have imported them.
        early = _Early(before, early_variables(os.environ))
        while socket_name(threads) == name:
            wait([listener, wake_read], _LOOK_SECONDS)
            _reap(wake_read)
            # Nobody is there, or somebody who has gone, is too slow, or talks nonsense.
            with suppress(OSError, ValueError, LookupError, TypeError):
                asking, _ = listener.accept()
                with asking:
                    _answer(asking, listener, early)
    signal.set_wakeup_fd(-1)
    os.execv(sys.executable, [sys.executable, "-m", "resources.zygote_process", *sys.argv[1:]])  # noqa: S606


@contextmanager
def _listening(folder: Path, name: str) -> Iterator[tuple[socket.socket, Path]]:
    """A socket that listens, and its file; those of dead zygotes are removed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, short_path(folder) as place:
        for path in folder.iterdir():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(f"{place}/{path.name}")
                except OSError:
                    path.unlink(missing_ok=True)
        listener.bind(f"{place}/{name}")
        listener.listen()
        listener.setblocking(False)
        yield listener, folder / name


def _reap(wake_read: int) -> None:
    with suppress(BlockingIOError):
        while os.read(wake_read, 4096):
            pass
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@dataclass(frozen=True)
class _Early:
    """The variables that count at an import: as they were, and as the imports have left them."""

    before: Mapping[str, str]
    after: Mapping[str, str]

    def fits(self, asked: Mapping[str, str]) -> bool:
        """Whether an environment would have led to the same imports."""
        return self.before.keys() <= asked.keys() and all(
            value in (self.before.get(name), self.after.get(name)) for name, value in asked.items()
        )


def _answer(asking: socket.socket, listener: socket.socket, early: _Early) -> None:
    """Fork a process, unless a stranger asks or another environment is asked for: then hang up."""
    asking.settimeout(ANSWER_SECONDS)
    if not is_of_this_user(asking):
        return
    header, descriptors, _, _ = socket.recv_fds(asking, HEADER.size, 3)
    try:
        body = b""
        if len(header) < HEADER.size or len(descriptors) < 3:
            return
        size = HEADER.unpack(header)[0]
        while len(body) < size:
            part = asking.recv(size - len(body))
            if not part:
                return
            body += part
        order = json.loads(body)
        if not early.fits(early_variables(order["environment"])):
            return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            listener.close()
            _become(asking, order, descriptors)
        pidfd = os.pidfd_open(pid)
        try:
            socket.send_fds(asking, [HEADER.pack(pid)], [pidfd])
        finally:
            os.close(pidfd)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _become(asking: socket.socket, order: dict[str, Any], descriptors: list[int]) -> Never:
    """Be the program that would have been started without a zygote, if who asks still waits for it."""
    code = 1
    try:
        with asking:
            if asking.recv(1) != GO:
                os._exit(0)
        served, output, errors = descriptors
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        for source, standard in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (errors, 2)):
            os.dup2(source, standard)
            if source > 2:
                os.close(source)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv[:] = ["-c"]
        sys.path[:] = order["path"]
        # What a program that is started from here would import again is not the zygote.
        sys.modules["__main__"] = types.ModuleType("__main__")
        for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
            del sys.modules[name]
        importlib.invalidate_caches()
        importlib.import_module(order["module"]).main(served)
        code = 0
    except BaseException:  # noqa: BLE001 — nothing above could handle it
        traceback.print_exc()
    finally:
        # Not sys.exit: the frames above belong to the zygote.
        with suppress(BaseException):
            # As multiprocessing's children end.
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
