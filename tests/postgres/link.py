"""A TCP link between a client and a server that a test can cut, or make swallow what the server answers."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Link:
    """Listens on a free port of 127.0.0.1 and passes bytes on to `port`. Leave it with `with`.

    `mute()` from now on drops the server's answers, while the client's requests go through; `cut()` ends every connection; `heal()` lets new
    ones through. `change` may alter what the server sends.
    """

    def __init__(self, port: int, *, change=None) -> None:
        self.target = port
        self.change = change or (lambda data: data)
        self.muted = threading.Event()
        self.swallowed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._listener.close()
        self.cut()

    def mute(self) -> None:
        self.swallowed.clear()
        self.muted.set()

    def heal(self) -> None:
        self.muted.clear()

    def cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open += [client, server]
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self.muted.is_set():
                    self.swallowed.set()
                else:
                    sink.sendall(self.change(data) if answers else data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
