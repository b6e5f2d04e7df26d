"""The node keeps replicas alive whatever becomes of the controller, and none beyond the demo."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from portfsm.demo import node

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 30.0
Leash = tuple[socket.socket, socket.socket]


class Controller:
    """The other end of the node's line, blocking."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._answers = self._socket.makefile("rb")

    def ask(self, **order: Any) -> dict[str, Any]:
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


class RunningNode:
    """A node as the demo starts it."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self._port = port
        self._controllers: list[Controller] = []
        self.process = process

    def controller(self) -> Controller:
        self._controllers.append(Controller(self._port))
        return self._controllers[-1]

    def close(self) -> None:
        for controller in self._controllers:
            controller.close()


@contextmanager
def running_node(leash: Leash) -> Iterator[RunningNode]:
    """Starts a node, and ends it with the leash."""
    ours, theirs = leash
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fds = (listener.fileno(), theirs.fileno())
        with subprocess.Popen([sys.executable, "-I", "-S", node.__file__, *map(str, fds)], pass_fds=fds) as process:
            with closing(RunningNode(listener.getsockname()[1], process)) as running:
                yield running
            theirs.close()
            ours.shutdown(socket.SHUT_WR)
            process.wait(TIMEOUT_S)


def get(port: int, path: str) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65_536), b""))
    parsed: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return parsed


def test_a_replica_answers_with_its_name_and_the_path(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        pid = running.controller().ask(do="start", owner="cart-1", service="cart", port=ports[0])["pid"]

        assert pid != os.getpid()
        assert get(ports[0], "/42") == {"service": "cart", "owner": "cart-1", "port": ports[0], "path": "/42"}


def test_a_stopped_replica_has_left_its_port_when_the_answer_comes(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        controller = running.controller()
        controller.ask(do="start", owner="cart-1", service="cart", port=ports[0])
        controller.ask(do="stop", owner="cart-1")

        assert "pid" in controller.ask(do="start", owner="users-1", service="users", port=ports[0])
        assert get(ports[0], "/")["service"] == "users"


def test_stopping_twice_is_fine(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        controller = running.controller()
        controller.ask(do="start", owner="cart-1", service="cart", port=ports[0])

        assert controller.ask(do="stop", owner="cart-1") == controller.ask(do="stop", owner="cart-1")


def test_a_port_in_use_is_reported_with_the_reason(leash: Leash, ports: range) -> None:
    with running_node(leash) as running, socket.create_server(("127.0.0.1", ports[0])):
        controller = running.controller()

        assert controller.ask(do="start", owner="cart-1", service="cart", port=ports[0]) == {"error": os.strerror(errno.EADDRINUSE)}
        assert controller.ask(do="list") == {"replicas": []}


def test_replicas_outlive_their_controller(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        first = running.controller()
        started = first.ask(do="start", owner="cart-1", service="cart", port=ports[0])
        first.close()

        assert running.controller().ask(do="list")["replicas"] == [
            {"pid": started["pid"], "owner": "cart-1", "service": "cart", "port": ports[0]}
        ]


def test_orders_of_a_former_controller_are_void_once_a_new_one_has_called(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        former, new = running.controller(), running.controller()
        assert new.ask(do="list") == {"replicas": []}

        with pytest.raises((ConnectionError, json.JSONDecodeError)):
            former.ask(do="start", owner="cart-1", service="cart", port=ports[0])
        assert new.ask(do="list") == {"replicas": []}


def test_a_replica_that_died_is_not_listed(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        controller = running.controller()
        pid = controller.ask(do="start", owner="cart-1", service="cart", port=ports[0])["pid"]
        os.kill(pid, 9)
        pidfd_ended(pid)

        assert controller.ask(do="list") == {"replicas": []}


def test_an_order_it_does_not_know_is_answered_not_fatal(leash: Leash) -> None:
    with running_node(leash) as running:
        controller = running.controller()

        assert "not an order" in controller.ask(do="dance")["error"]
        assert controller.ask(do="list") == {"replicas": []}


def test_a_caller_that_never_finishes_its_request_does_not_stop_the_replica(leash: Leash, ports: range) -> None:
    with running_node(leash) as running:
        running.controller().ask(do="start", owner="cart-1", service="cart", port=ports[0])
        with socket.create_connection(("127.0.0.1", ports[0])) as mute:
            mute.sendall(b"GET")

            assert get(ports[0], "/")["owner"] == "cart-1"


def test_when_the_node_is_killed_its_replicas_end_with_the_leash(leash: Leash, ports: range) -> None:
    ours, _ = leash
    with running_node(leash) as running:
        running.controller().ask(do="start", owner="cart-1", service="cart", port=ports[0])
        running.process.kill()

    ours.settimeout(TIMEOUT_S)
    assert ours.recv(1) == b"", "the replica still holds the leash"


def pidfd_ended(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], TIMEOUT_S)[0]
    os.close(pidfd)
