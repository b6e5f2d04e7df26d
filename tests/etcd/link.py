"""A link between client and server that fails when a test says so: a TCP proxy on a port of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Link:
    """Passes bytes on to `port`. `answers` is how many answers may still come back: at 0 the connection is cut when one would."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.answers: int | None = None
        self.once = False
        """After one cut all is well again."""
        self.cut = 0
        """How many answers were withheld."""
        self.deaf = False
        """Requests do not get through either."""
        self.refused: bytes | None = None
        """Requests that have this in them are cut off."""
        self._open: list[socket.socket] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in [self._server, *self._open]:
            _shut(sock)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._server.accept()[0]
                if self.deaf:
                    _shut(near)
                    continue
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink, back in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass_on, args=(source, sink), kwargs={"back": back}, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if back and self.answers is not None:
                    if self.answers <= 0:
                        self.cut += 1
                        self.answers = None if self.once else 0
                        break
                    self.answers -= 1
                if self.deaf or (not back and self.refused is not None and self.refused in data):
                    break
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
