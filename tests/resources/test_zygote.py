"""The zygote: what is born of it is as good as a program, and it answers none that it does not fit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fork_tasks
import psutil
import pytest
from executor_harness import is_running, wait_for

import resources
from resources.forkserver import ForkServer, Task
from resources.preloads import ZYGOTE_LIBRARIES, process_environment
from resources.zygote import HEADER, Born, Zygote, short_path, socket_name

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="zygotes rest on pidfds")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Whose path is longer than the address of a socket may be."""
    return tmp_path / ("a_long_name_" * 12) / "zygotes"


@pytest.fixture
def zygote(folder: Path) -> Iterator[Zygote]:
    """With one library that nobody else has loaded."""
    zygote = Zygote(folder, threads=1)
    with running(zygote, ["colorsys"]):
        yield zygote


def is_zygote(process: psutil.Process, zygote: Zygote) -> bool:
    """Whether it is that zygote's own process."""
    with suppress(psutil.Error):
        return str(zygote.folder) in process.cmdline()
    return False


class running:  # noqa: N801 — reads as a word of the statement
    """A zygote's process while the statement runs."""

    def __init__(self, zygote: Zygote, libraries: Any, **variables: str) -> None:
        self._zygote = zygote
        self._command = zygote.command(libraries)
        self._environment = os.environ | variables

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(self._command, env=self._environment)
        path = self._zygote.folder / socket_name(self._zygote.threads)
        wait_for(path.exists, seconds=120)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def told(server: ForkServer, tmp_path: Path) -> dict[str, Any]:
    """What a child of a server says of its process."""
    path = tmp_path / "told"
    path.unlink(missing_ok=True)
    server.submit("told", Task(fork_tasks.describe_process, (str(path),)))
    assert wait_for(lambda: server.ended("told")).code == 0
    return fork_tasks.read(path)


def test_born__has_the_libraries_and_is_otherwise_like_a_program(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY_THE_CLIENT_HAS", "this")
    monkeypatch.chdir(tmp_path)
    born = ForkServer(zygote=zygote, environment={"ADDED": "for the server"})
    program = ForkServer(environment={"ADDED": "for the server"})
    try:
        of_born, of_program = (told(server, tmp_path) for server in (born, program))
        assert isinstance(born._process, Born)
        assert isinstance(program._process, subprocess.Popen)
    finally:
        born.close()
        program.close()

    assert of_born.pop("colorsys") is True
    assert of_program.pop("colorsys") is False
    assert of_born == of_program


def test_born__loads_this_projects_modules_itself(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "edited"
    (edited / "resources").mkdir(parents=True)
    source = Path(resources.__path__[0], "forkserver_process.py").read_text()
    rest = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    (edited / "resources" / "__init__.py").write_text(rest)
    (edited / "resources" / "forkserver_process.py").write_text(f"{source}\nEDITED = True\n")
    monkeypatch.syspath_prepend(str(edited))
    server = ForkServer(zygote=zygote)
    try:
        path = str(tmp_path / "edited_is_loaded")
        task = Task(fork_tasks.note_attribute, (path, "resources.forkserver_process", "EDITED"))
        server.submit("child", task)
        assert wait_for(lambda: server.ended("child")).code == 0
        assert isinstance(server._process, Born)
    finally:
        server.close()

    assert Path(path).read_text() == "True"


def test_fork_server__where_no_zygote_fits__is_a_program(zygote: Zygote, tmp_path: Path) -> None:
    def is_born(asked: Zygote, **environment: str) -> bool:
        server = ForkServer(zygote=asked, environment=environment)
        try:
            told(server, tmp_path)
            return isinstance(server._process, Born)
        finally:
            server.close()

    assert is_born(zygote)
    assert is_born(zygote, OMP_NUM_THREADS="7", ANYTHING="else")
    assert not is_born(Zygote(zygote.folder, threads=2))
    assert not is_born(Zygote(tmp_path / "nowhere", threads=1))
    for name in ("LD_LIBRARY_PATH", "TZ", "MALLOC_ARENA_MAX", "PYTHONHASHSEED"):
        assert not is_born(zygote, **{name: "1"}), name


def test_zygote__ends__its_servers_live_on_and_the_next_is_a_program(
    folder: Path, tmp_path: Path
) -> None:
    zygote = Zygote(folder, threads=1)
    server, later = ForkServer(zygote=zygote), ForkServer(zygote=zygote)
    try:
        with running(zygote, []) as process:
            told(server, tmp_path)
            process.kill()
            process.wait()
            told(server, tmp_path)
            told(later, tmp_path)
        assert isinstance(server._process, Born)
        assert isinstance(later._process, subprocess.Popen)
        # The next one clears away the dead one's socket.
        with running(zygote, []):
            assert len(list(folder.iterdir())) == 1
    finally:
        server.close()
        later.close()


def test_zygote__reaps_its_servers(zygote: Zygote, tmp_path: Path) -> None:
    server = ForkServer(zygote=zygote)
    told(server, tmp_path)
    process = server._process
    assert isinstance(process, Born)
    server.close()

    wait_for(lambda: not Path(f"/proc/{process.pid}").exists(), seconds=5)
    process.kill()
    process.wait(1)


def test_born__outstays_a_wait_until_it_is_killed(zygote: Zygote, tmp_path: Path) -> None:
    server = ForkServer(zygote=zygote)
    told(server, tmp_path)
    process = server._process
    assert isinstance(process, Born)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.kill()
    process.wait(5)
    # The zygote, whose child it is, may not have reaped it yet.
    wait_for(lambda: not is_running(process.pid), seconds=5)


def test_zygote__after_a_package_was_installed__starts_itself_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "grown.py").write_text("VERSION = 1\n")
    os.utime(packages, (1, 1))
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    zygote = Zygote(folder, threads=1)
    with running(zygote, ["grown"]) as process:
        before = socket_name(1)
        (packages / "grown.py").write_text("VERSION = 22\n")
        os.utime(packages, (2, 2))
        assert socket_name(1) != before
        server = ForkServer(zygote=zygote)
        told(server, tmp_path)
        assert isinstance(server._process, subprocess.Popen), "the old one must not answer"
        server.close()
        # Anybody's call wakes it; else it looks every half a minute.
        with socket.socket(socket.AF_UNIX) as caller, short_path(folder) as place:
            caller.connect(f"{place}/{before}")
        wait_for((folder / socket_name(1)).exists)
        assert process.poll() is None
        path = str(tmp_path / "version")
        server = ForkServer(zygote=zygote)
        server.submit("child", Task(fork_tasks.note_attribute, (path, "grown", "VERSION")))
        assert wait_for(lambda: server.ended("child")).code == 0
        assert isinstance(server._process, Born)
        server.close()

    assert Path(path).read_text() == "22"


def test_zygote__survives_those_who_say_nothing_or_nonsense(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(zygote.folder)
    (process,) = [p for p in psutil.process_iter() if is_zygote(p, zygote)]
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(socket_name(1))
    for nonsense in (b"nonsense", HEADER.pack(9) + b"{no json}", HEADER.pack(2) + b"{}"):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(socket_name(1))
            socket.send_fds(rude, [nonsense[: HEADER.size]], [0, 1, 2])
            rude.sendall(nonsense[HEADER.size :])
            assert rude.recv(1) == b""
    server = ForkServer(zygote=zygote)
    told(server, tmp_path)
    assert isinstance(server._process, Born)
    server.close()
    assert process.is_running()


def test_zygote__whose_starter_is_killed__ends(folder: Path, tmp_path: Path) -> None:
    command = Zygote(folder, threads=1).command([])
    code = f"import subprocess, time; subprocess.Popen({command!r}); time.sleep(60)"
    starter = subprocess.Popen([sys.executable, "-c", code])
    wait_for((folder / socket_name(1)).exists)
    (process,) = psutil.Process(starter.pid).children()

    starter.kill()
    starter.wait()

    wait_for(lambda: not is_running(process.pid), seconds=5)


def test_fork_server__whose_zygote_answers_too_late__has_one_server_only(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.zygote.ANSWER_SECONDS", 0.2)
    (zygotes_own,) = [p for p in psutil.process_iter() if is_zygote(p, zygote)]
    server = ForkServer(zygote=zygote)
    zygotes_own.suspend()
    try:
        server.start()
        assert isinstance(server._process, subprocess.Popen)
    finally:
        zygotes_own.resume()
    for _ in range(5):
        told(server, tmp_path)
    wait_for(lambda: not zygotes_own.children(), seconds=5)
    told(server, tmp_path)
    server.close()


def test_zygote__with_all_libraries_can_be_forked(folder: Path, tmp_path: Path) -> None:
    zygote = Zygote(folder, threads=2)
    early = process_environment(threads=2)
    with running(zygote, ZYGOTE_LIBRARIES, **early):
        path = tmp_path / "described"
        server = ForkServer(zygote=zygote, environment=early)
        server.submit("child", Task(fork_tasks.describe_server, (str(path),)))
        assert wait_for(lambda: server.ended("child")).code == 0
        assert isinstance(server._process, Born)
        server.close()
        # Importing them changes variables that count, of a process that was not born.
        program = ForkServer(environment=early)
        program.submit("child", Task(fork_tasks.ask, (zygote, str(tmp_path / "asked"))))
        assert wait_for(lambda: program.ended("child"), seconds=60).code == 0
        program.close()

    assert path.read_text() == "1 True False"
    assert (tmp_path / "asked").read_text().startswith("born of the zygote")
