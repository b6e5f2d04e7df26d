"""What HAProxy answers, read. Pure: text in, values out. What follows from them for a port is in `_haproxy_rules`.

Columns are found by name. A line that cannot be read is never skipped: the worker that sent it holds every port.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "ESTABLISHED",
    "NOBODYS",
    "Listing",
    "Place",
    "Slot",
    "Stream",
    "Unreadable",
    "Worker",
    "canonical",
    "questions",
    "read_listing",
    "read_worker",
    "table_of",
]

MAINTENANCE = 0x01
"""Bit of `srv_admin_state`: forced maintenance. What is inherited from a tracked slot or comes from a resolver ends by itself, and
draining is none: a cookie still leads there."""
AGENT = 0x05
"""Bits of `srv_agent_state`: an agent check that is enabled, or under way. Its answer `ready` ends maintenance."""
ESTABLISHED = 8
"""Of `scb=[N`: below it the stream has no connection to a server yet and may still open one."""
_ANY_STATE = 1 << 30
_DIGITS, _WORD = "[0-9]{1,18}", "[A-Za-z0-9_.:-]++"
_NUMBER = re.compile(_DIGITS)
_LAST_PORT = 65_535
_STREAM = re.compile(
    r"0x[0-9a-fA-F]+: proto=(?:\? ts=\S+ |.* be=(\S+) srv=(\S+) .*\b)epoch=(?:0x)?([0-9a-fA-F]{1,16}) .*\bscb=\[([0-9]{1,18}),"
)
_STAMP = re.compile(r"\b(GEN|RELAY)=([0-9]{1,18})\b")
_COLUMNS = {
    "be_name": _WORD, "srv_name": _WORD, "srv_addr": "[^ ]++", "srv_port": _DIGITS, "srv_admin_state": _DIGITS, "srv_agent_state": _DIGITS,
    "srv_fqdn": "[^ ]++",
}  # fmt: skip

Place = tuple[str, str]
"""A slot by the names of its backend and server."""
NOBODYS: Place = ("", "")
"""Of a stream that HAProxy itself began, for a log, a peer or an agent: it may be going to any slot."""


class Unreadable(Exception):  # noqa: N818  (never leaves the witnesses)
    """An answer, or a line of it, that means nothing here."""


@attrs.frozen
class Listing:
    """What `show proc` answers: the processes."""

    master: int
    uptime_s: int
    reloads: str
    """With the number of failed ones, as written; any change of it means that things moved."""
    version: str
    workers: tuple[int, ...]
    old: tuple[int, ...]

    @property
    def failed(self) -> bool:
        """The last reload failed, and the former workers go on."""
        return "[" in self.reloads and not self.reloads.endswith("[0]")


@attrs.frozen
class Slot:
    """One server line of one backend."""

    backend: str
    server: str
    address: str
    port: int
    name: str
    """The host name that its address comes from; empty when it was given in numbers."""
    maintenance: bool
    """Out of service until somebody puts it back."""
    agent: bool = False
    """An agent check may put it back."""

    @property
    def place(self) -> Place:
        """Its two names."""
        return self.backend, self.server


@attrs.frozen
class Stream:
    """One line of `show sess`."""

    place: Place
    state: int
    epoch: int
    """How many listings of streams there had been when it began, by anybody."""


@attrs.frozen
class Worker:
    """One worker process at one moment."""

    pid: int
    old: bool
    generation: int | None = None
    relays: bool = False
    stopping: bool = False
    slots: Mapping[int, Sequence[Slot]] = attrs.field(factory=dict)
    """By port; slots whose port is the client's are under 0."""
    early: Mapping[Place, int] = attrs.field(factory=dict)
    """For each slot with streams the lowest state of one; the server is empty when none was chosen yet."""
    streams: Sequence[Stream] = ()
    strays: Sequence[Place] = ()
    """Slots with streams on their way that began before the slot was seen where it is: they may connect anywhere."""
    unreadable: str = ""
    """Why nothing of this may be believed."""


def questions(pid: int) -> str:
    """The line that asks one worker everything. The order matters: streams come after the table that they are held against."""
    asked = ("show info", "show env GEN", "show env RELAY", "show servers state", "show sess")
    return "; ".join(f"@!{pid} {question}" for question in asked)


# ---------------------------------------------------------------------- reading


def read_listing(answer: str) -> Listing:
    """Raises `Unreadable`."""
    lines = answer.rstrip().splitlines()
    if not lines or not lines[0].startswith("#<PID>"):
        raise Unreadable(f"no list of processes but {_quoted(answer)}")
    names = [name.strip("#<>") for name in lines[0].split()]
    section = ""
    found: dict[str, list[dict[str, str]]] = {"master": [], "workers": [], "old workers": []}
    for line in lines[1:]:
        if line.startswith("#"):
            section = line.strip("# ")
        elif section != "programs" and line:
            row = _process(names, line)
            found.setdefault(section or row["type"], []).append(row)
    if len(found["master"]) != 1:
        raise Unreadable(f"no master process among {_quoted(answer)}")
    master, pids = found["master"][0], {part: tuple(int(row["PID"]) for row in rows) for part, rows in found.items()}
    return Listing(
        int(master["PID"]), _seconds(master["uptime"]), master["reloads"], master["version"], pids["workers"], pids["old workers"]
    )


def _process(names: list[str], line: str) -> dict[str, str]:
    # The master's reload count is two words, "5 [failed: 0]" is three: put them together before they are counted.
    row = dict(zip(names, re.sub(r" \[failed: (\d+)\]", r"[\1]", line).split(), strict=False))
    if not {"PID", "type", "reloads", "uptime", "version"} <= row.keys() or not _NUMBER.fullmatch(row["PID"]):
        raise Unreadable(f"a process that cannot be read: {_quoted(line)}")
    return row


def _seconds(uptime: str) -> int:
    parts = re.fullmatch(r"([0-9]{1,9})d([0-9]{1,9})h([0-9]{1,9})m([0-9]{1,9})s", uptime)
    if not parts:
        raise Unreadable(f"an uptime that cannot be read: {_quoted(uptime)}")
    days, hours, minutes, seconds = map(int, parts.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def read_worker(pid: int, answer: str, *, old: bool) -> Worker | None:
    """What one worker said to `questions`; None when it did not answer all of them. What cannot be read is in `unreadable`."""
    sections = answer.split("\n\n")
    if len(sections) != 6 or sections[-1].strip():  # noqa: PLR2004  (five answers, each ended by an empty line)
        return None
    try:
        return _worker(pid, sections, old=old)
    except Unreadable as error:
        return Worker(pid, old, unreadable=str(error))


def _worker(pid: int, sections: list[str], *, old: bool) -> Worker:
    info: dict[str, str] = {}
    for line in sections[0].splitlines():
        name, _, value = line.partition(": ")
        info[name] = value
    if info.get("Pid") != str(pid) or info.get("Stopping") not in {"0", "1"}:
        raise Unreadable(f"its `show info` is not that of process {pid}: {_quoted(sections[0])}")
    generation, relays = _stamps(info.get("description", ""), _variable("GEN", sections[1]), _variable("RELAY", sections[2]))
    slots: dict[int, list[Slot]] = {}
    for slot in table_of(sections[3]):
        slots.setdefault(slot.port, []).append(slot)
    streams = tuple(_streams(sections[4]))
    early: dict[Place, int] = {}
    for stream in streams:
        early[stream.place] = min(stream.state, early.get(stream.place, _ANY_STATE))
    return Worker(pid, old, generation, relays, info["Stopping"] == "1", slots, early, streams)


def _variable(name: str, section: str) -> int | None:
    if section.strip() == "Variable not found":
        return None
    value = section.strip().removeprefix(f"{name}=")
    if not section.strip().startswith(f"{name}=") or not _NUMBER.fullmatch(value):
        raise Unreadable(f"no number in {name}: {_quoted(section)}")
    return int(value)


def _stamps(description: str, generation: int | None, relay: int | None) -> tuple[int | None, bool]:
    # The master hands its environment on to every later worker, so a variable may come from an earlier configuration that
    # set it. The description is not handed on: where it carries the stamps, they count.
    said = {name: int(value) for name, value in _STAMP.findall(description)}
    return (said["GEN"], said.get("RELAY") == 1) if "GEN" in said else (generation, relay == 1)


def table_of(section: str) -> Iterator[Slot]:
    """The slots of `show servers state`. Raises `Unreadable`."""
    lines = section.strip("\n").splitlines()
    if len(lines) < 2 or not lines[1].startswith("# be_id "):  # noqa: PLR2004  (a version line and the names of the columns)
        raise Unreadable(f"no table of servers but {_quoted(section)}")
    row, columns = _row(lines[1])
    for line in lines[2:]:
        words = row.fullmatch(line)
        if words is None:
            raise Unreadable(f"a server that cannot be read: {_quoted(line)}")
        yield _slot(*words.group(*columns))


@functools.lru_cache(8)
def _row(header: str) -> tuple[re.Pattern[str], list[int]]:
    """What a line below this header looks like, and which of its groups are the columns that count."""
    names = header[2:].split()
    if missing := [name for name in _COLUMNS if names.count(name) != 1]:
        raise Unreadable(f"a table of servers without a column that is needed: {', '.join(missing)}")
    line = " +".join(f"({_COLUMNS[name]})" if name in _COLUMNS else "[^ ]++" for name in names)
    wanted = [name for name in names if name in _COLUMNS]
    return re.compile(f"{line} *"), [1 + wanted.index(name) for name in _COLUMNS]


def _slot(backend: str, server: str, address: str, port: str, state: str, agent: str, name: str) -> Slot:
    put_back = bool(int(agent) & AGENT)
    lasting = bool(int(state) & MAINTENANCE) and not put_back
    number = int(port)
    known = number if number <= _LAST_PORT else 0  # one counted back from the client's is a negative number
    return Slot(backend, server, canonical(address), known, "" if name == "-" else name, lasting, put_back)


def _streams(section: str) -> Iterator[Stream]:
    """Established streams are kept too, but HAProxy's own: with retries of answers they connect again."""
    for line in filter(None, section.splitlines()):
        stream = _STREAM.match(line)
        if not stream:
            raise Unreadable(f"a stream that cannot be read: {_quoted(line)}")
        backend, server, epoch, state = stream.groups()
        place = NOBODYS if backend is None else (backend, "" if server == "<none>" else server)
        if place != NOBODYS or int(state) < ESTABLISHED:
            yield Stream(place, int(state), int(epoch, 16))


def canonical(address: str) -> str:
    """One spelling for one address. IPv4, which is nearly all, is taken as it stands."""
    if ":" not in address:
        return address
    try:
        six = ipaddress.IPv6Address(address.strip("[]"))
    except ValueError:
        return address
    return str(six.ipv4_mapped or six)


def _quoted(text: str) -> str:
    return repr(text[:100] + ("..." if len(text) > 100 else ""))  # noqa: PLR2004  (enough to find it by)
