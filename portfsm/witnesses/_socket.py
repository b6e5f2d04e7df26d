"""One question to a unix socket: send, half-close, read to the end, within a deadline and a bound of memory.

All that can go wrong is `Unanswered` with a sentence for people; only cancellation passes through.
"""

from __future__ import annotations

import anyio

__all__ = ["Unanswered", "put"]


class Unanswered(Exception):  # noqa: N818  (never leaves the witnesses)
    """Nobody answered in time, or not all of it."""


async def put(path: str, question: str, *, deadline_s: float, max_bytes: int) -> str:
    """The whole answer. Raises `Unanswered`."""
    try:
        with anyio.fail_after(deadline_s):
            return await _converse(path, question, max_bytes)
    except TimeoutError:
        raise Unanswered(f"{path} did not answer within {deadline_s:g} s") from None
    except (OSError, ValueError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise Unanswered(f"{path} cannot be asked: {_why(error)}") from error


async def _converse(path: str, question: str, max_bytes: int) -> str:
    answer = bytearray()
    async with await anyio.connect_unix(path) as stream:
        await stream.send(question.encode() + b"\n")
        await stream.send_eof()
        async for chunk in stream:
            answer += chunk
            if len(answer) > max_bytes:
                raise Unanswered(f"{path} answered more than {max_bytes} bytes: is it an HAProxy master socket?")
    return answer.decode(errors="replace")


def _why(error: BaseException) -> str:
    inner = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = (inner.strerror if isinstance(inner, OSError) else None) or str(inner) or type(inner).__name__
    return f"{reason[0].lower()}{reason[1:]}"
