"""The second line of defence: a replica refuses requests that are meant for another.

Rule: the proxy says in a header of each request for which service, or under which lease token, it routes. A replica that is not
the one meant answers 503, before its application has seen anything, and the proxy tries the next one (`retry-on 503`). A
request that carries no such header passes, unless `required`: health checks and people with curl have none.

What is compared are names, not secrets: this guards against stale routes, not against forged requests.

    app = Identity(app, service="checkout")

The lines a proxy needs are in `docs/identity.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

__all__ = ["Identity"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REFUSED = "x-portfsm-refused"


class Identity:
    """ASGI middleware: passes what is meant for this replica, refuses the rest.

    `service` is compared with the header `header`. `token`, the token of the replica's lease, is compared with `token_header`; so
    it also refuses requests for an earlier replica of the same service. A refusal carries the header `x-portfsm-refused`,
    which names what did not match.
    """

    def __init__(
        self,
        app: App,
        *,
        service: str,
        token: int | str | None = None,
        header: str = "x-portfsm-service",
        token_header: str = "x-portfsm-token",  # noqa: S107  (the name of a header)
        required: bool = False,
    ) -> None:
        if not service:
            raise ValueError("service must not be empty: name what this replica serves")
        wanted = {_name(header): service, _name(token_header): None if token is None else str(token)}
        self._app = app
        self._wanted: Mapping[bytes, bytes] = {name: value.encode() for name, value in wanted.items() if value is not None}
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        wrong = self._mismatch(scope["headers"]) if scope["type"] in ("http", "websocket") else b""
        if not wrong:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, "http.response", wrong)
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await _refuse(send, "websocket.http.response", wrong)
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "meant for another replica"})

    def _mismatch(self, headers: Any) -> bytes:
        """The header that names another than this replica; empty when none does."""
        missing = dict(self._wanted) if self._required else {}
        for name, value in headers:
            wanted = self._wanted.get(name.lower())
            if wanted is not None and value != wanted:
                return bytes(name.lower())
            missing.pop(name.lower(), None)
        return next(iter(missing), b"")


async def _refuse(send: Send, kind: str, wrong: bytes) -> None:
    body = b"This replica does not serve what the request was meant for.\n"
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        (_REFUSED.encode(), wrong),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{kind}.start", "status": 503, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def _name(header: str) -> bytes:
    if not header or not header.isascii() or not header.replace("-", "").isalnum():
        raise ValueError(f"{header!r} is not a header's name: use letters, digits and hyphens")
    return header.lower().encode()
