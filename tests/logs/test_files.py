"""Many processes share one file: no line is torn or lost, rotation included."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ts_forecast.logs.files import FILE_NAME, LastResort, SharedFileHandler
from ts_forecast.logs.formatters import JsonFormatter
from ts_forecast.logs.masking import Masker

REPOSITORY = Path(__file__).parents[2]
WRITER = """
import logging, os, sys
from pathlib import Path
from ts_forecast.logs.files import SharedFileHandler
from ts_forecast.logs.formatters import JsonFormatter
from ts_forecast.logs.masking import Masker

handler = SharedFileHandler(Path(sys.argv[1]), most_bytes=40_000, older_files=99)
handler.setFormatter(JsonFormatter(Masker()))
log = logging.getLogger("writer")
log.addHandler(handler)
log.warning("before the fork")
# Two of them share what they inherited.
name = "child" if os.fork() == 0 else "parent"
for number in range(300):
    log.warning("%s %d %s", name, number, "x" * (number % 150))
if name == "child":
    os._exit(0)
os.wait()
"""


def handler_in(folder: Path) -> SharedFileHandler:
    handler = SharedFileHandler(folder)
    handler.setFormatter(JsonFormatter(Masker()))
    return handler


def test_shared_file__many_processes_and_forks_rotate_it__every_line_is_there_whole(
    tmp_path: Path,
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WRITER, str(tmp_path)],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    complaints = [writer.communicate(timeout=60)[1] for writer in writers]

    assert complaints == [b"", b"", b""]
    files = sorted(path for path in tmp_path.iterdir() if path.name.startswith(FILE_NAME))
    assert len(files) > 3
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    seen = Counter((line["pid"], *line["message"].split()[:2]) for line in lines)
    assert set(seen.values()) == {1}
    assert len(lines) == 3 * (1 + 2 * 300)
    # A line may start below the limit and end above it; no file grows beyond that.
    assert max(file.stat().st_size for file in files) < 40_000 + 1_000


def test_shared_file__more_than_the_limit__oldest_goes(tmp_path: Path) -> None:
    handler = SharedFileHandler(tmp_path, most_bytes=1_000, older_files=2)
    handler.setFormatter(JsonFormatter(Masker()))
    for number in range(100):
        handler.handle(logging.makeLogRecord({"levelno": 30, "msg": f"{number}", "name": "a"}))
    handler.close()

    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert names == [FILE_NAME, f"{FILE_NAME}.1", f"{FILE_NAME}.2"]
    assert '"99"' in (tmp_path / FILE_NAME).read_text()


def test_shared_file__folder_is_gone_meanwhile__says_so_once_and_raises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handler_in(tmp_path / "logs")
    handler.handle(logging.makeLogRecord({"levelno": 30, "msg": "kept", "name": "a"}))
    handler.close()
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("a file now")

    for _ in range(3):
        handler.handle(logging.makeLogRecord({"levelno": 30, "msg": "lost", "name": "a"}))
    handler.close()

    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(r"ts-forecast\.log cannot be written: .*File exists", said)


def test_shared_file__closed__is_opened_by_the_next_record(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    for message in ("one", "two"):
        handler.handle(logging.makeLogRecord({"levelno": 30, "msg": message, "name": "a"}))
        handler.close()

    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 2


def test_last_resort__only_where_nobody_else_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    ours: list[logging.Handler] = []
    ours.append(LastResort(ours))
    heard, unheard = logging.getLogger("lone.heard"), logging.getLogger("lone.unheard")
    top = logging.getLogger("lone")
    # Under pytest the root has handlers of others.
    top.propagate = False
    top.addHandler(ours[0])
    heard.addHandler(logging.NullHandler())
    try:
        heard.warning("told by another")
        unheard.warning("told by us")
        unheard.info("not at all")
    finally:
        top.removeHandler(ours[0])
        top.propagate = True

    assert capsys.readouterr().err == "told by us\n"
