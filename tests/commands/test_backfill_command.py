"""``ts-forecast backfill`` where nothing serves it; where a deployment does: ``end_to_end``."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


def backfill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "assets.backfill_command", "shop", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


class _WithoutDaemon(BaseHTTPRequestHandler):
    """A webserver whose daemon is dead, as Dagster's answers."""

    def do_POST(self) -> None:
        status = {"daemonType": "BACKFILL", "required": True, "healthy": False}
        daemons = {"daemonHealth": {"allDaemonStatuses": [status]}}
        body = json.dumps({"data": {"instance": daemons}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def without_daemon() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _WithoutDaemon) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_backfill__nothing_serves__says_what_to_start() -> None:
    found = backfill("--from", "2023-Q1", "--to", "2023-Q2", "--server", "http://127.0.0.1:9")

    assert found.returncode == 1
    assert "http://127.0.0.1:9/graphql does not answer" in found.stderr
    assert "ts-forecast dev" in found.stderr and "Traceback" not in found.stderr


def test_backfill__daemon_is_dead__says_so(without_daemon: str) -> None:
    found = backfill("--from", "2023-Q1", "--to", "2023-Q2", "--server", without_daemon)

    assert found.returncode == 1
    assert "backfill daemon does not run" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Which quarters?"),
        (("--from", "2023-Q2", "--to", "2023-Q1"), "2023-Q1 lies before 2023-Q2"),
        (("--from", "spring", "--to", "2023-Q1"), "'spring' is not a quarter"),
    ],
)
def test_backfill__no_range__is_refused(arguments: tuple[str, ...], words: str) -> None:
    found = backfill(*arguments)

    assert found.returncode == 1
    assert words in found.stderr
