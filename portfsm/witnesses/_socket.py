"""One question to a unix socket: send, half-close, read to the end, within a deadline and a bound of memory.

All that can go wrong is `Unanswered` with a sentence for people; only cancellation passes through.
"""

from __future__ import annotations

import socket

import anyio

__all__ = ["Unanswered", "put"]

_CHUNK = 1 << 18


class Unanswered(Exception):  # noqa: N818  (never leaves the witnesses)
    """Nobody answered in time, or not all of it."""


async def put(path: str, question: str, *, deadline_s: float, max_bytes: int) -> str:
    """The whole answer. Raises `Unanswered`."""
    try:
        with anyio.fail_after(deadline_s):
            answer = await _converse(path, question, max_bytes)
    except TimeoutError:
        raise Unanswered(f"{path} did not answer within {deadline_s:g} s") from None
    except BlockingIOError:
        raise Unanswered(f"{path} takes no more connections: what listens there is stopped or overrun") from None
    except (OSError, ValueError) as error:
        raise Unanswered(f"{path} cannot be asked: {_why(error)}") from error
    return answer


async def _converse(path: str, question: str, max_bytes: int) -> str:
    answer = bytearray()
    # Not `anyio.connect_unix`: where the backlog is full (a frozen proxy) asyncio's spins until it is cancelled, and leaks the socket.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.connect(path)
        sock.sendall(question.encode() + b"\n")
        sock.shutdown(socket.SHUT_WR)
        while True:
            await anyio.wait_readable(sock)
            if not (chunk := sock.recv(_CHUNK)):
                return answer.decode(errors="replace")
            answer += chunk
            if len(answer) > max_bytes:
                raise Unanswered(f"{path} answered more than {max_bytes} bytes: is it an HAProxy master socket?")


def _why(error: OSError | ValueError) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return f"{reason[0].lower()}{reason[1:]}"
