"""A node: starts replicas where it is told, stops them, says which ones live. It outlives the controller.

What a kubelet or a raylet is to a real controller, as small as it can be. Run as a plain script on the
standard library alone (`python -I -S node.py LISTENER LEASH`), because every replica is a fork of this process: a
process that loaded little and started no thread forks in a millisecond, and safely.

A replica is a real process. It binds the port it was given, answers each HTTP request with the name of
its service, and dies at SIGTERM, or when the leash ends: the demo holds the other end, so nothing outlives it.

The controller speaks JSON lines, one answer a line: `start`, `stop`, `list`. There is one controller at a
time: when a new one calls, whatever the former had still to say is void, and not even read.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_LIMIT = 65_536
PATIENCE_S = 0.5
"""How long a replica waits for the rest of one request: it answers one caller at a time."""


class Node:
    """The replicas of this node, by owner."""

    def __init__(self, listener: socket.socket, leash: socket.socket) -> None:
        self._listener = listener
        self._leash = leash
        self._controller: socket.socket | None = None
        self._unread = b""
        self._replicas: dict[str, dict[str, Any]] = {}

    def serve(self) -> None:
        """Obey until the leash ends; then end every replica."""
        while True:
            ready, _, _ = select.select([s for s in (self._leash, self._listener, self._controller) if s], [], [])
            if self._leash in ready:
                break
            if self._listener in ready:
                self._change_controller()
            elif self._controller:
                self._hear(self._controller)
        for owner in list(self._replicas):
            self.stop(owner)

    def _change_controller(self) -> None:
        if self._controller:
            self._controller.close()
        self._controller, _ = self._listener.accept()
        self._unread = b""

    def _hear(self, controller: socket.socket) -> None:
        try:
            heard = controller.recv(REQUEST_LIMIT)
            *lines, self._unread = (self._unread + heard).split(b"\n")
            for line in lines:
                controller.sendall(json.dumps(self._obey(json.loads(line))).encode() + b"\n")
        except OSError:
            heard = b""  # killed while we answered: its successor will ask for the list
        if not heard:
            controller.close()
            self._controller = None

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order:
            case {"do": "start", "owner": owner, "service": service, "port": port}:
                return self.start(owner, service, port)
            case {"do": "stop", "owner": owner}:
                return self.stop(owner)
            case {"do": "list"}:
                return {"replicas": self.living()}
        return {"error": f"not an order: {order}"}

    def start(self, owner: str, service: str, port: int) -> dict[str, Any]:
        """Fork a replica; answer when it listens, or with the error that kept it from doing so."""
        told, tell = os.pipe()

        def replica() -> None:
            os.close(told)
            for inherited in (self._listener, self._controller):
                if inherited:
                    inherited.close()  # or the supervisor and the controller would never see this node's end
            run_replica(owner, service, port, tell=tell, leash=self._leash)

        pid = fork(replica)
        os.close(tell)
        with os.fdopen(told, encoding="ascii") as pipe:
            error = pipe.readline()
        if error != "0\n":
            os.waitpid(pid, 0)
            return {"error": os.strerror(int(error)) if error else "it died"}
        self._replicas[owner] = {"pid": pid, "owner": owner, "service": service, "port": port}
        return {"pid": pid}

    def stop(self, owner: str) -> dict[str, Any]:
        """End a replica and wait for its exit. One that is gone already is fine."""
        replica = self._replicas.pop(owner, None)
        if replica:
            os.kill(replica["pid"], signal.SIGTERM)
            os.waitpid(replica["pid"], 0)
        return {"stopped": owner}

    def living(self) -> list[dict[str, Any]]:
        """Every replica that has not ended."""
        for owner, replica in list(self._replicas.items()):
            if os.waitpid(replica["pid"], os.WNOHANG)[0]:
                del self._replicas[owner]
        return list(self._replicas.values())


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process and return its pid. The child never returns into the caller's stack."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def run_replica(owner: str, service: str, port: int, *, tell: int, leash: socket.socket) -> None:
    """Bind, say how that went (an errno, 0 for fine), then answer until the leash ends."""
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError as error:
        os.write(tell, b"%d\n" % (error.errno or 0))
        return
    os.write(tell, b"0\n")
    os.close(tell)
    while leash not in select.select([listener, leash], [], [])[0]:
        connection, _ = listener.accept()
        with connection:
            answer(connection, {"service": service, "owner": owner, "port": port})


def answer(connection: socket.socket, identity: dict[str, Any]) -> None:
    """One request, one answer: who is speaking, and what was asked."""
    connection.settimeout(PATIENCE_S)
    try:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(REQUEST_LIMIT)
            if not piece:
                return
            head += piece
        path = head.split(b" ", 2)[1].decode("latin-1")
        body = json.dumps({**identity, "path": path}).encode() + b"\n"
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    except OSError:
        return  # the caller left, or never finished asking


if __name__ == "__main__":
    Node(*(socket.socket(fileno=int(number)) for number in sys.argv[1:])).serve()
