"""PostgreSQL servers that tests start for themselves: the distribution's, on a unix socket only."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from ts_forecast.db.engine import create_engine

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def debian_postgres() -> Iterator[Engine]:
    """A throwaway server; the engine is of its superuser, on the database ``postgres``.

    Skips the test, saying so, where PostgreSQL 15 is not installed.
    """
    if not (DEBIAN / "initdb").exists():
        pytest.skip("no PostgreSQL 15 on this machine (Debian: postgresql-15)")
    # A socket's path must stay short.
    folder = Path(tempfile.mkdtemp(prefix="pg15-", dir="/tmp"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        shutil.chown(folder, nobody.pw_uid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = folder / "data"
    subprocess.run(
        [DEBIAN / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"],
        check=True,
        capture_output=True,
        cwd=folder,
        **as_user,
    )
    server = subprocess.Popen(
        [DEBIAN / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,
    )
    engine = create_engine(f"postgresql+psycopg://postgres@/postgres?host={folder}")
    try:
        _wait_for(engine)
        yield engine
    finally:
        engine.dispose()
        server.send_signal(signal.SIGINT)
        server.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(engine: Engine) -> None:
    # The socket is there before the server takes connections.
    for attempt in itertools.count():
        try:
            engine.connect().close()
        except OperationalError:
            if attempt == 300:
                raise
            time.sleep(0.1)
        else:
            return
