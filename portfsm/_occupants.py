"""Who sits on a port, as far as the system tells: the socket tables of `/proc`, and the processes that have the sockets open.

Best effort, and slow beside a bind (10 to 80 ms on a busy machine): asked when a bind has failed, and by `portfsm doctor`.
A socket that is bound and does not listen stands in no table of TCP; what belongs to other users has a pid for root only.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

__all__ = ["PROC", "Kind", "Occupant", "address_text", "occupants"]

Kind = Literal["tcp", "udp"]
PROC = Path("/proc")

_LISTEN, _TIME_WAIT, _UDP_BOUND = "0A", "06", "07"
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  (compared with, not bound to)
_IPV4_BYTES = 4


@attrs.frozen(kw_only=True)
class Occupant:
    """A socket on a port, and whose it is. As text: `nginx (pid 812) listens on 0.0.0.0:30000`."""

    kind: Kind
    host: str
    """Its local address; `0.0.0.0` and `::` are all of them."""
    port: int
    doing: Literal["listens", "connected", "closing"]
    """`closing`: TIME_WAIT, which no process owns and which ends by itself within a minute."""
    peer: str = ""
    """The other end of a connection, `10.0.0.7:443`."""
    uid: int
    inode: int
    pid: int | None = None
    """None when nobody owns it any more, or this user may not see who does."""
    command: str = ""

    def covers(self, host: str) -> bool:
        """Whether it keeps a socket at `host` off the port: the same address, or one of the two is all of them."""
        return self.host == host or self.host in _WILDCARDS or host in _WILDCARDS

    def __str__(self) -> str:
        place = f"{address_text(self.host, self.port)}{'/udp' if self.kind == 'udp' else ''}"
        if self.doing == "closing":
            return f"a closed connection ({place} to {self.peer}, TIME_WAIT) stays for up to a minute"
        if self.doing == "listens":
            return f"{self._who} {'listens on' if self.kind == 'tcp' else 'has'} {place}"
        return f"{self._who} has a connection from {place} to {self.peer}"

    @property
    def _who(self) -> str:
        if self.pid is not None:
            return f"{self.command or 'a process'} (pid {self.pid})"
        return f"a process of uid {self.uid}" if self.inode else "nobody any more, but the system,"


def address_text(host: str, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def occupants(ports: Container[int], *, kinds: Iterable[Kind] = ("tcp",), proc: Path = PROC) -> tuple[Occupant, ...]:
    """The sockets on `ports` in this network namespace, listeners first. Empty where the system does not tell.

    `proc`: where procfs is mounted.
    """
    found = [occupant for kind in kinds for file in (kind, f"{kind}6") for occupant in _read(proc / "net" / file, kind, ports)]
    named = _named(found, proc) if found else []
    return tuple(sorted(named, key=lambda each: (each.doing != "listens", each.doing == "closing", each.port, each.host, each.inode)))


def _read(table: Path, kind: Kind, ports: Container[int]) -> Iterator[Occupant]:
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        with suppress(ValueError, IndexError):  # a line that reads otherwise than it has for thirty years
            host, port = _address(fields[1])
            if port in ports:
                yield _occupant(kind, host, port, fields)


def _occupant(kind: Kind, host: str, port: int, fields: list[str]) -> Occupant:
    peer, code = _address(fields[2]), fields[3]
    listens = code == (_LISTEN if kind == "tcp" else _UDP_BOUND)
    return Occupant(
        kind=kind, host=host, port=port, uid=int(fields[7]), inode=int(fields[9]), peer="" if listens else address_text(*peer),
        doing="listens" if listens else "closing" if code == _TIME_WAIT else "connected",
    )  # fmt: skip


def _address(text: str) -> tuple[str, int]:
    """`0100007F:7530` is 127.0.0.1:30000: words of 32 bits, each as the machine stores it."""
    words, _, port = text.partition(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    if packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]  # an IPv4 address as a socket of both families has it
    return socket.inet_ntop(socket.AF_INET if len(packed) == _IPV4_BYTES else socket.AF_INET6, packed), int(port, 16)


def _named(found: list[Occupant], proc: Path) -> list[Occupant]:
    wanted = {f"socket:[{each.inode}]": each.inode for each in found if each.inode}
    owners: dict[int, int] = {}
    for process in _processes(proc) if wanted else ():
        for inode in _held(process, wanted):
            owners.setdefault(inode, int(process.name))  # the lowest pid: a parent before the child that inherited it
        if len(owners) == len(wanted):
            break
    return [attrs.evolve(each, pid=pid, command=_command(proc, pid)) if (pid := owners.get(each.inode)) else each for each in found]


def _processes(proc: Path) -> list[Path]:
    with suppress(OSError):
        return sorted((each for each in proc.iterdir() if each.name.isdecimal()), key=lambda each: int(each.name))
    return []


def _held(process: Path, wanted: dict[str, int]) -> Iterator[int]:
    with suppress(OSError):  # gone meanwhile, or another user's
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if (inode := wanted.get(str(descriptor.readlink()))) is not None:
                    yield inode


def _command(proc: Path, pid: int) -> str:
    """The program's short name, plainly visible: it is chosen by the program, and what is said here goes into the log."""
    try:
        name = (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return "".join(char if char.isprintable() else "?" for char in name)
