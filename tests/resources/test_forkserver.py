"""The fork server: what it preloads, how children end, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fork_tasks
import pytest
from executor_harness import is_running, wait_for

from resources.forkserver import ForkServer, Task
from resources.preloads import TRAINING_PRELOAD, process_environment


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(grace_seconds=1.0)
    yield server
    server.close()


def test_submit__reports_exit_codes_and_signals(server: ForkServer, tmp_path: Path) -> None:
    server.submit("ok", Task(fork_tasks.write, (str(tmp_path / "file"), "written")))
    server.submit("seven", Task(fork_tasks.exit_with, (7,)))
    server.submit("killed", Task(os.kill, (0, signal.SIGKILL)))

    ended = {key: wait_for(lambda key=key: server.ended(key)) for key in ("ok", "seven", "killed")}

    assert {key: end.code for key, end in ended.items()} == {"ok": 0, "seven": 7, "killed": -9}
    assert (tmp_path / "file").read_text() == "written"
    assert "exited with code 7" in ended["seven"].reason
    assert "SIGKILL" in ended["killed"].reason and "memory" in ended["killed"].reason


def test_ended__refuses_a_name_that_was_never_submitted(server: ForkServer) -> None:
    with pytest.raises(KeyError):
        server.ended("unknown")


def test_interrupt__reaches_a_child_however_young(server: ForkServer, tmp_path: Path) -> None:
    server.submit("child", Task(fork_tasks.write_pid_and_stay, (str(tmp_path / "pid"),)))
    server.interrupt("child")

    assert wait_for(lambda: server.ended("child")).code == 130


def test_close__kills_children_that_outstay_the_grace(server: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    server.submit("deaf", Task(fork_tasks.write_pid_and_stay_deaf, (str(path),)))
    wait_for(path.exists)
    server.interrupt("deaf")

    started = time.monotonic()
    server.close()

    assert 0.9 < time.monotonic() - started < 4
    assert not is_running(int(path.read_text()))


def test_child__leaves_no_program_behind(server: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    server.submit("child", Task(fork_tasks.start_program_and_end, (str(path),)))

    assert wait_for(lambda: server.ended("child")).code == 0
    wait_for(lambda: not is_running(int(path.read_text())), seconds=2)


def test_server__killed_takes_its_children_and_the_next_submit_starts_another(
    server: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    server.submit("child", Task(fork_tasks.write_pid_and_stay, (str(path),)))
    wait_for(path.exists)
    assert server._process is not None

    server._process.kill()

    assert wait_for(lambda: server.ended("child"), seconds=5).code is None
    wait_for(lambda: not is_running(int(path.read_text())), seconds=2)
    server.submit("child", Task(fork_tasks.exit_with, (0,)))
    assert wait_for(lambda: server.ended("child")).code == 0


def test_client__killed_leaves_no_process_and_has_its_will_done(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:] = {sys.path!r}; import fork_tasks as t; t.be_a_client('.')"
    client = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    pids = [
        int(wait_for(lambda p=tmp_path / name: p.exists() and p.read_text()))
        for name in ("server", "child")
    ]

    client.kill()
    client.wait()

    wait_for((tmp_path / "will").exists, seconds=5)
    wait_for(lambda: not any(map(is_running, pids)), seconds=5)


def test_server__imports_the_later_modules_while_a_child_runs(tmp_path: Path) -> None:
    server = ForkServer(preload_later=["colorsys", "no_such_module"])
    paths = [tmp_path / "first", tmp_path / "second"]
    try:
        server.submit("first", Task(fork_tasks.note_module_and_stay, (str(paths[0]), "colorsys")))
        wait_for(paths[0].exists)
        time.sleep(4)
        server.submit("second", Task(fork_tasks.note_module_and_stay, (str(paths[1]), "colorsys")))
        wait_for(paths[1].exists)
    finally:
        server.close()

    # The first child has not waited for it, the second has it, and an absent one harms nobody.
    assert [path.read_text() for path in paths] == ["False", "True"]


def test_server__with_the_training_libraries_can_be_forked(tmp_path: Path) -> None:
    path = tmp_path / "described"
    server = ForkServer(preload=TRAINING_PRELOAD, environment=process_environment(threads=2))
    try:
        server.submit("child", Task(fork_tasks.describe_server, (str(path),)))
        assert wait_for(lambda: server.ended("child"), seconds=120).code == 0
    finally:
        server.close()

    # One thread, everything loaded, CUDA untouched.
    assert path.read_text() == "1 True False"
