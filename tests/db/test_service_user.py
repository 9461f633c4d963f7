"""The user that the embedded server runs as is made once, however many processes ask for it as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# With an /etc of its own, which several processes find without the user at the same moment.
_IN_A_NAMESPACE = """
set -e
mount --bind "$1" /etc
for _ in 1 2 3 4 5 6; do
  "$2" -c "$3" &
  pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
"""
_ASK = """
import time
from ts_forecast.db.embedded_cluster import _identity
time.sleep(-time.time() % 2)
print(_identity()["user"])
"""


def _may_mount() -> bool:
    command = ["unshare", "--mount", "mount", "--bind", "/etc", "/etc"]
    is_root = os.geteuid() == 0 and shutil.which("unshare") is not None
    return is_root and subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_identity__asked_by_several_at_once_on_a_new_machine__is_one_user(tmp_path: Path) -> None:
    if not _may_mount():
        pytest.skip("needs root who may mount, for an /etc of its own")
    etc = tmp_path / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    for name in ("passwd", "group", "shadow", "gshadow"):
        file = etc / name
        if file.exists():
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join(line for line in lines if not line.startswith("pgserver:")))
    command = ["unshare", "--mount", "sh", "-c", _IN_A_NAMESPACE, "sh", str(etc)]

    done = subprocess.run(
        [*command, sys.executable, _ASK], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    users = done.stdout.split()
    assert len(users) == 6
    assert len(set(users)) == 1
