"""Failures become rows and messages in one line; a dead webhook costs little and fails nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ts_forecast.errors import SettingsError
from ts_forecast.logs.failures import Failure, store_failures
from ts_forecast.logs.masking import Masker
from ts_forecast.logs.webhook import Webhook
from ts_forecast.settings import Settings, load_settings


class Receiver:
    """A real HTTP server that answers what it is told to."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.bodies: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                receiver.bodies.append(json.loads(self.rfile.read(length)))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/B0/secret"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


def told(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"webhook_url": SecretStr(url)})


def test_store_failures__a_row_each_in_one_line_without_secrets(
    engine: Engine, settings: Settings
) -> None:
    hidden = told(settings, "https://hooks.example/secret-token")
    failure = Failure(
        "shop",
        "2025-Q1",
        "predictions",
        "no\n memory for https://hooks.example/secret-token",
        details={"dagster_run": "abc"},
    )

    store_failures(engine, hidden, [failure, Failure("", "", "upkeep", "slow", level="WARNING")])

    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT log_level, log_message, extra_data FROM system_logs ORDER BY log_id")
        ).all()
    assert [(row.log_level, row.log_message) for row in rows] == [
        ("ERROR", "shop, 2025-Q1, predictions: no memory for ***"),
        ("WARNING", "upkeep: slow"),
    ]
    assert rows[0].extra_data["quarter"] == "2025-Q1"
    assert rows[0].extra_data["dagster_run"] == "abc"


def test_line__endless_error__is_cut() -> None:
    assert len(Failure("shop", "", "x", "y" * 9_999).line(Masker())) <= 1_000


def test_tell__slack_json__escaped(receiver: Receiver, settings: Settings) -> None:
    assert Webhook(told(settings, receiver.url)).tell("a < b & c")

    assert receiver.bodies == [{"text": "a &lt; b &amp; c"}]


def test_tell__busy_twice__is_asked_again(receiver: Receiver, settings: Settings) -> None:
    receiver.answers = [503, 429, 200]

    assert Webhook(told(settings, receiver.url)).tell("failed")

    assert len(receiver.bodies) == 3


def test_tell__refused__is_not_asked_again_nor_its_address_logged(
    receiver: Receiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [404]

    assert not Webhook(told(settings, receiver.url)).tell("failed")

    assert len(receiver.bodies) == 1
    assert "it answered 404" in caplog.text
    assert "secret" not in caplog.text


def test_tell__dead__fails_nothing_and_is_left_alone_for_a_while(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    webhook = Webhook(told(settings, f"http://127.0.0.1:{port}/secret"))

    begun = time.monotonic()
    assert not webhook.tell("failed")
    first = time.monotonic() - begun
    assert not webhook.tell("failed again")

    assert first < 12
    assert time.monotonic() - begun - first < 0.1
    assert caplog.text.count("was not told: ConnectionError") == 1
    assert "secret" not in caplog.text


def test_tell__no_webhook__is_nothing(settings: Settings) -> None:
    assert not Webhook(settings).tell("failed")


def test_load_settings__webhook_without_a_scheme__refused_unquoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TS_FORECAST_WEBHOOK_URL", "hooks.example/secret")

    with pytest.raises(SettingsError, match="it must start with https://") as caught:
        load_settings(_env_file=None)

    assert "secret" not in str(caught.value)
