"""Starting and ending what Dagster serves: ports, signals, exit codes, no process left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from ts_forecast.commands.serving import run_module
from ts_forecast.settings import Settings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    assert settings.database_url is not None
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TS_FORECAST", "DAGSTER"))}
    return clean | {
        "TS_FORECAST_HOME": str(settings.home),
        "TS_FORECAST_PIPELINES": str(REPOSITORY / "pipelines"),
        "DATA_DIR": str(settings.data_dir),
        "MODEL_DIR": str(settings.model_dir),
        "OUTPUT_DIR": str(settings.output_dir),
        "LOG_DIR": str(settings.log_dir),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "COLUMNS": "200",
    }


@pytest.fixture
def dev(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[psutil.Popen, int, Path]]:
    """``ts-forecast dev``, answering."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    log = tmp_path / "dev.log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "ts_forecast.cli", "dev", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A terminal of its own, so to speak: its Ctrl-C is not ours.
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while not (_answers(port) and "Dagster UI: " in log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield process, port, log
    finally:
        for left in [*process.children(recursive=True), process] if process.is_running() else []:
            left.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/server_info", timeout=5).ok
    except requests.RequestException:
        return False


def _wait_for(found: object, seconds: float = 30) -> object:
    assert callable(found)
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def test_dev__webserver_killed_then_ctrl_c__restarted_then_all_end(
    dev: tuple[psutil.Popen, int, Path],
) -> None:
    process, port, log = dev

    def webserver() -> psutil.Process | None:
        for child in process.children(recursive=True):
            with suppress(psutil.Error):
                if "dagster_webserver" in " ".join(child.cmdline()):
                    return child
        return None

    first = webserver()
    assert first is not None
    # Its code server becomes an orphan, which has to end with the others.
    orphans = first.children(recursive=True)
    first.kill()
    _wait_for(lambda: (now := webserver()) is not None and now.pid != first.pid)
    _wait_for(lambda: _answers(port), 60)
    tree = [*process.children(recursive=True), *orphans]
    assert len(tree) >= 4

    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    code = process.wait(timeout=40)

    assert code == 0, log.read_text()
    assert f"Dagster UI: http://127.0.0.1:{port}" in log.read_text()
    assert _tracebacks(log) == 0, log.read_text()
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert alive == []
    assert time.monotonic() - begun < 20


def _tracebacks(log: Path) -> int:
    """How many there are; not those of Dagster's daemon at a sensor whose location has just been closed."""
    text = log.read_text()
    closed = text.count("DagsterCodeLocationNotFoundError: Location ts-forecast does not exist")
    return text.count("Traceback") - closed


@pytest.mark.parametrize("victim", ["command", "server"])
def test_dev__killed__nothing_of_it_lives_on(
    dev: tuple[psutil.Popen, int, Path], victim: str
) -> None:
    process, port, log = dev
    (server,) = process.children()
    tree = [server, *server.children(recursive=True)]
    # Webserver, daemon, a code server of each, and the guard.
    assert len(tree) >= 6

    (server if victim == "server" else process).kill()

    code = process.wait(timeout=10)
    assert code == (128 + signal.SIGKILL if victim == "server" else -signal.SIGKILL)
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert alive == []
    assert not _answers(port)
    assert _tracebacks(log) == 0, log.read_text()


def test_dev__zygote_cannot_be__is_left_alone_and_all_else_goes_on(
    settings: Settings, dev: tuple[psutil.Popen, int, Path]
) -> None:
    process, port, log = dev
    # It needs a folder of that name.
    (settings.home / "zygotes").write_text("in the way")

    _wait_for(lambda: "The zygote keeps dying" in log.read_text(), 60)

    assert _answers(port)
    assert process.poll() is None
    assert log.read_text().count("the zygote ended with 1; starting it again") == 5


def test_dev__port_taken__says_so_and_leaves_nothing(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = subprocess.run(
            [sys.executable, "-m", "ts_forecast.cli", "dev", "--port", port],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert answer.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in answer.stderr
    assert "--port" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which ``run_module`` finds modules."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_run_module__exit_code_arguments_and_environment__pass_through(scripts: Path) -> None:
    (scripts / "answer.py").write_text(
        "import os, sys; sys.exit(int(sys.argv[1]) + int(os.environ['PLUS']))"
    )

    assert run_module("answer", "3", PLUS="4") == 7


def test_run_module__child_dies_of_a_signal__has_the_shells_code(scripts: Path) -> None:
    (scripts / "dying.py").write_text("import os; os.kill(os.getpid(), 9)")

    assert run_module("dying") == 137


def test_run_module__sigterm__reaches_the_child(scripts: Path) -> None:
    (scripts / "terminated.py").write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(30)\n"
    )
    before = signal.getsignal(signal.SIGTERM)

    assert run_module("terminated") == 5
    assert signal.getsignal(signal.SIGTERM) is before
