"""Real sockets on a pool's ports: bound and listening ones for replicas, and holders that keep others off.

`PortManager.listen` binds with `bind_all`, under these rules: bind *and* listen, since two may bind and only one can
listen; on the address the replica will use; with SO_REUSEADDR for TCP, so that TIME_WAIT of the former replica is no
obstacle; never SO_REUSEADDR for UDP and never SO_REUSEPORT, with which two programs share one port and notice nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

import attrs

from portfsm._faults import blocks, remedy
from portfsm._occupants import Kind, Occupant, address_text, occupants
from portfsm.errors import BindFailed, InvalidValue
from portfsm.specs import normalise_ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from portfsm.specs import Ports
    from portfsm.values import Lease

__all__ = ["BoundLease", "Holder", "Kind", "NotBound", "Occupant", "Target", "bind_all", "check_targets", "occupants"]


@attrs.frozen
class BoundLease:
    """A lease, and the sockets on its port: one for each host and kind, in the order they were asked for.

    TCP sockets listen; all are blocking and closed in children, as Python makes them. Leaving the block (`with`) closes them here; the
    lease is released apart, when nobody serves there any more.
    """

    lease: Lease
    sockets: tuple[socket.socket, ...]

    @property
    def port(self) -> int:
        """The number they are bound to."""
        return self.lease.port

    @property
    def fds(self) -> tuple[int, ...]:
        """Their file descriptors: what `subprocess.Popen(..., pass_fds=)` hands to a child.

        Close them here once the child has them. A copy left open keeps the port listening after the child has died: clients connect and
        nobody answers.
        """
        return tuple(each.fileno() for each in self.sockets)

    def close(self) -> None:
        """Close the sockets in this process. The lease goes on. May be called twice."""
        for each in self.sockets:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---------------------------------------------------------------------- where to bind


@attrs.frozen
class Target:
    """An address to bind, without its port."""

    kind: Kind
    family: socket.AddressFamily
    host: str
    scope: int = 0
    """The interface of a link-local address."""

    def address(self, port: int) -> tuple[Any, ...]:
        """What `socket.bind` takes."""
        return (self.host, port) if self.family == socket.AF_INET else (self.host, port, 0, self.scope)


def check_targets(host: str | Sequence[str], kind: Kind | Sequence[Kind]) -> tuple[Target, ...]:
    """Every host with every kind. Raises `InvalidValue` for what is no address, and for two that exclude each other."""
    hosts, kinds = _listed(host), _listed(kind)
    if not hosts or not kinds:
        name, value = ("kind", kind) if hosts else ("host", host)
        raise InvalidValue(f"{name} names nothing to bind: {value!r}; give at least one", name=name, value=value)
    for each in kinds:
        if each not in get_args(Kind) or kinds.count(each) > 1:
            raise InvalidValue(f'kind is "tcp", "udp" or both, each once, not {kind!r}', name="kind", value=kind)
    targets = tuple(_target(each, what) for each in hosts for what in kinds)
    _check_apart(hosts, targets)
    return targets


def _listed(value: Any) -> tuple[Any, ...]:
    """One or several, as several."""
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _target(host: object, kind: Kind) -> Target:
    try:
        address = ipaddress.ip_address(host if isinstance(host, str) else "")
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
        scope = getattr(address, "scope_id", None)
        index = socket.if_nametoindex(scope) if scope and not scope.isdecimal() else int(scope or 0)
    except (ValueError, OSError):
        advice = "write an address such as 127.0.0.1, 0.0.0.0, ::1 or fe80::1%eth0; names are not looked up"
        raise InvalidValue(f"host {host!r} is no address: {advice}", name="host", value=host) from None
    if getattr(address, "ipv4_mapped", None):
        raise InvalidValue(f"host {host!r} is an IPv4 address in IPv6 clothes: write the IPv4 address", name="host", value=host)
    return Target(kind, family, str(address).partition("%")[0], index)


def _check_apart(hosts: tuple[str, ...], targets: tuple[Target, ...]) -> None:
    """A socket of our own must not be taken for somebody who sits on the port."""
    seen: set[Target] = set()
    for target in targets:
        alike = [other for other in seen if (other.kind, other.family) == (target.kind, target.family)]
        if target in seen or (alike and any(map(_everywhere, (target, *alike)))):
            raise InvalidValue(f"hosts {hosts!r} cover {target.host} twice: name each address once", name="host", value=hosts)
        seen.add(target)


def _everywhere(target: Target) -> bool:
    return ipaddress.ip_address(target.host).is_unspecified


# ---------------------------------------------------------------------- binding


class NotBound(Exception):  # noqa: N818  (says what happened)
    """One of the sockets could not be bound; the others were closed again."""

    def __init__(self, target: Target, port: int, error: OSError) -> None:
        super().__init__(target, port, error)
        self.target = target
        self.port = port
        self.error = error
        self.place = f"{address_text(target.host, port)}{'/udp' if target.kind == 'udp' else ''}"

    @property
    def in_words(self) -> str:
        """Where, why, and what to do where the port is not to blame."""
        return f"{self.place}: {self.error.strerror or self.error}; {remedy(self.error, host=self.target.host)}"


def bind_all(port: int, targets: Iterable[Target]) -> tuple[socket.socket, ...]:
    """A socket on `port` for each target, all or none; TCP sockets listen. Raises `NotBound`."""
    made: list[socket.socket] = []
    try:
        for target in targets:
            try:
                made.append(_socket(target))
                made[-1].bind(target.address(port))
                if target.kind == "tcp":
                    made[-1].listen()
            except OSError as error:
                raise NotBound(target, port, error) from error
    except BaseException:
        for each in made:
            each.close()
        raise
    return tuple(made)


def _socket(target: Target) -> socket.socket:
    made = socket.socket(target.family, socket.SOCK_STREAM if target.kind == "tcp" else socket.SOCK_DGRAM)
    if target.kind == "tcp":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if target.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 is asked for by name
    return made


# ---------------------------------------------------------------------- holding


class Holder:
    """Keeps outgoing connections, and strangers, off ports that nobody serves on. TCP on Linux; no rights needed.

    Each port is bound and never listens. The system then gives it to no outgoing connection and to no `bind(0)`, and refuses it to
    programs that bind without SO_REUSEADDR; a proxy that still routes there is refused at once, and tries another replica.
    A replica binds and listens while the holder stays, if it sets SO_REUSEADDR: `PortManager.listen` and asyncio's servers do.

    `strict`: nobody at all can bind a port before `open(port)`. Call that between `allocate` and the start of the replica (`listen`
    does, given `holder=`), and `shut(port)` after the release. Without it every port is open.

    What it costs: one file descriptor a port, in this process. What it is not: a hold of the log. It ends with the process;
    programs that this process starts do not inherit it.
    """

    def __init__(self, ports: Ports | Iterable[range], *, host: str = "127.0.0.1", strict: bool = False) -> None:
        """`ports` as `PoolSpec` takes them, or its own `.ports`. Ports that others sit on are left out, see `missing`.

        Raises `InvalidValue`, and `BindFailed` with the reason and what to do when an error is no port's fault: no such address, a missing
        right, too few file descriptors. Nothing is held then.
        """
        self._target = check_targets(host, "tcp")[0]
        self.strict = strict
        self._held: dict[int, socket.socket] = {}
        self._missing: dict[int, str] = dict.fromkeys((port for piece in normalise_ports(ports) for port in piece), "")  # type: ignore[arg-type]
        try:
            self.retry()
        except BaseException:
            self.close()
            raise

    @property
    def held(self) -> tuple[int, ...]:
        """The ports it holds, in order."""
        return tuple(sorted(self._held))

    @property
    def missing(self) -> dict[int, str]:
        """The ports it does not hold, and why."""
        return dict(self._missing)

    def retry(self) -> int:
        """Try the missing ports again; how many were won. Raises `BindFailed` as at the start; what is held stays held."""
        before = len(self._held)
        for port in sorted(self._missing):
            self._hold(port)
        return len(self._held) - before

    def _hold(self, port: int) -> None:
        try:
            made = _socket(self._target)
            self._held[port] = made
            made.bind(self._target.address(port))
        except OSError as error:
            if (unused := self._held.pop(port, None)) is not None:
                unused.close()
            if not blocks(error):
                raise self._failed(NotBound(self._target, port, error)) from error
            self._missing[port] = error.strerror or str(error)
            return
        del self._missing[port]
        if self.strict:
            self.shut(port)

    def _failed(self, failure: NotBound) -> BindFailed:
        needed = f" ({len(self._held) + len(self._missing)} ports need as many)" if failure.error.errno == errno.EMFILE else ""
        return BindFailed(
            f"cannot hold {failure.in_words}{needed}",
            pool="", node="", host=self._target.host, port=failure.port, errno=failure.error.errno, tried={},
        )  # fmt: skip

    def open(self, port: int) -> None:
        """Let a program that sets SO_REUSEADDR bind `port` and listen, while the holder stays. Nothing happens if it is not held."""
        self._let(port, binders=True)

    def shut(self, port: int) -> None:
        """Let nobody bind `port` any more. Who listens there already goes on; a missing port is tried again first."""
        if port in self._missing:
            self._hold(port)
        self._let(port, binders=False)

    def _let(self, port: int, *, binders: bool) -> None:
        if (held := self._held.get(port)) is not None:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(binders))

    def drop(self, port: int) -> None:
        """Let go of `port` altogether, for a program that binds without SO_REUSEADDR. `retry` takes it back once it is free."""
        with suppress(KeyError):
            self._held.pop(port).close()
            self._missing[port] = "dropped"

    def close(self) -> None:
        """Let go of all. May be called twice."""
        while self._held:
            self._held.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
