"""A proxy on a unix socket that cuts a connection exactly around its COMMIT."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from types import TracebackType

_SOCKET = ".s.PGSQL.5432"


class When(Enum):
    """At which moment the connection ends."""

    BEFORE_COMMIT_ARRIVES = auto()
    BEFORE_THE_ANSWER = auto()
    # The client's side ends; the server's stays open, as behind a network that swallows packets.
    SERVER_NEVER_HEARS = auto()


class CuttingProxy:
    """Passes bytes between clients and a server, until it is told to cut."""

    def __init__(self, server_folder: Path, folder: Path) -> None:
        self.folder = folder
        self.cuts = 0
        self._server = str(server_folder / _SOCKET)
        self._when: When | None = None
        self._refuse_afterwards = False
        self._refuses = False
        self._only_after = b""
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / _SOCKET))
        self._listener.listen()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> CuttingProxy:
        self._run(self._accept)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            _end(end)
        for thread in self._threads:
            thread.join(timeout=5)
        for end in self._open:
            end.close()

    def cut_next_commit(
        self, when: When, *, refuse_afterwards: bool = False, only_after: str = ""
    ) -> None:
        """Cut the connection whose COMMIT comes next; its successors pass, or are refused.

        Args:
            only_after: of those connections that have sent this text.
        """
        self._only_after = only_after.encode()
        self._when, self._refuse_afterwards = when, refuse_afterwards

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._open += [client, server]
            self._run(self._pass, client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        is_meant = False
        with suppress(OSError):
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        _end(client)
                        _end(server)
                        return
                    is_meant = is_meant or (source is client and self._only_after in data)
                    is_commit = source is client and b"COMMIT" in data
                    if is_commit and is_meant and self._when is not None:
                        self._cut(client, server, data)
                        return
                    (server if source is client else client).sendall(data)

    def _cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        when, self._when = self._when, None
        self._refuses = self._refuse_afterwards
        self.cuts += 1
        if when is When.BEFORE_THE_ANSWER:
            server.sendall(data)
            # The answer has come, so the transaction is committed; nobody gets to read it.
            server.recv(65536)
        _end(client)
        if when is not When.SERVER_NEVER_HEARS:
            _end(server)


def _end(end: socket.socket) -> None:
    # Not closed: a thread may wait on it, and its number would be given to another.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
