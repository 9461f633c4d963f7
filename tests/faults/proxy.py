"""A way to PostgreSQL's unix socket that breaks around the COMMIT of a marked transaction."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL

_PORT = "5432"


class Proxy:
    """Passes connections through, until one that sent ``mark`` commits: that one is cut.

    Args:
        is_answer_lost: cut after the server has committed; else before it hears of it.

    Attributes:
        url: of the database, through the proxy.
        cuts: how many connections were cut; the first only is.
    """

    def __init__(self, url: URL, mark: str, is_answer_lost: bool) -> None:
        self._mark, self._is_answer_lost = mark.encode(), is_answer_lost
        self._upstream = f"{url.query['host']}/.s.PGSQL.{url.query.get('port', _PORT)}"
        self._folder = Path(tempfile.mkdtemp(prefix="proxy-", dir="/tmp"))
        self.url = url.update_query_dict(
            {"host": str(self._folder), "port": _PORT}
        ).render_as_string(hide_password=False)
        self.cuts = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Proxy:
        self._listener = self._opened(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(self._folder / f".s.PGSQL.{_PORT}"))
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *_: Any) -> None:
        for each in self._sockets:
            _end(each)
        # Those of the last connections are added meanwhile.
        while self._threads:
            self._threads.pop().join()
        for each in self._sockets:
            each.close()
        shutil.rmtree(self._folder)

    def _opened(self, end: socket.socket) -> socket.socket:
        self._sockets.append(end)
        return end

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._opened(self._listener.accept()[0])
                server = self._opened(socket.socket(socket.AF_UNIX))
                server.connect(self._upstream)
                silent = threading.Event()
                self._start(self._ask, client, server, silent)
                self._start(self._answer, server, client, silent)

    def _ask(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        is_marked = False
        with suppress(OSError):
            while question := client.recv(65_536):
                is_marked = is_marked or self._mark in question
                if is_marked and b"COMMIT" in question and not self.cuts:
                    self.cuts += 1
                    if self._is_answer_lost:
                        silent.set()
                        server.sendall(question)
                    else:
                        _end(server)
                        _end(client)
                    return
                server.sendall(question)
        _end(server)

    def _answer(
        self, server: socket.socket, client: socket.socket, silent: threading.Event
    ) -> None:
        with suppress(OSError):
            while answer := server.recv(65_536):
                if silent.is_set():
                    # It has committed: that is what it answers.
                    break
                client.sendall(answer)
        _end(client)
        _end(server)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
