"""What an HAProxy's configuration must carry for evidence to be right, and the line to add where it does not. Pure.

The sockets tell the version, the generation and the relay promise; the rest stands only in the text of the configuration, which
is read line by line: a keyword in the wrong place is reported rather than missed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from portfsm.witnesses._haproxy_answers import read_worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from portfsm.witnesses._haproxy_answers import Listing, Worker

__all__ = ["Finding", "Preflight", "examine", "unreachable", "void"]

_OLDEST = (2, 6)
_COUNTED = re.compile(r":[+-]\d+$")
_SAFE_RETRIES = {"none", "conn-failure"}
_ROUTES = {"server", "server-template", "use_backend", "default_backend"}
_SECTIONS = {"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "program", "cache", "ring"}


@attrs.frozen
class Finding:
    """One thing that is missing or in the way."""

    what: str
    why: str
    add: str
    """The line to add, or to put in the place of the other."""


@attrs.frozen
class Preflight:
    """What was found; nothing when the proxy is ready."""

    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...] = ()
    """What could not be looked at, in words."""
    reached: bool = True
    """Somebody answered at the master socket."""

    @property
    def ready(self) -> bool:
        """Nothing is missing of what could be looked at."""
        return not self.findings


def unreachable(reason: str, path: str) -> Preflight:
    """Nobody answered at the master socket."""
    why = f"only the master can ask old workers, and it did not answer: {reason}"
    return Preflight((Finding("no master socket", why, f"haproxy -W -S {path},level,admin -f ..."),), ("everything else",), reached=False)


def examine(
    listing: Listing,
    answers: Iterable[tuple[int, str]],
    text: str | None,
    trouble: str,
    *,
    retries_replies: bool = False,
    restores: bool = False,
) -> Preflight:
    """All findings from the processes' answers and, where there is one, the configuration's text.

    `retries_replies`, `restores`: the witness sees to `retry-on`, and to the state file.
    """
    found = [*_version(listing)]
    if not listing.workers:
        found.append(Finding("no worker", "the master is starting, reloading or ending", "haproxy -c -f ...    # tells what is wrong"))
    for pid, answer in answers:
        worker = read_worker(pid, answer, old=False)
        found += _worker(pid, worker, answer)
    if text is None:
        return Preflight(tuple(found), (f"hard-stop-after, persist, retry-on, state files, relay rules: {trouble}",))
    sections = list(_sections(text))
    found += [*_global(sections), *_routing(sections), *_addresses(sections, restores=restores)]
    found += _retries(sections, retries_replies=retries_replies)
    return Preflight(tuple(dict.fromkeys(found)))  # a line in ten backends is one finding


def void(text: str, *, retries_replies: bool = False, restores: bool = False) -> str:
    """The first line of a configuration with which no evidence counts, a closing backquote, and why; empty when there is none."""
    sections = list(_sections(text))
    found = [finding for finding in _global(sections) if finding.what == "grace"]
    found += [*_routing(sections), *_addresses(sections, restores=restores), *_retries(sections, retries_replies=retries_replies)]
    return f"{found[0].what}`: {found[0].why}" if found else ""


# ---------------------------------------------------------------------- what the processes say


def _version(listing: Listing) -> Iterator[Finding]:
    numbers = re.match(r"([0-9]{1,9})\.([0-9]{1,9})", listing.version)
    if not numbers or tuple(map(int, numbers.groups())) < _OLDEST:
        yield Finding(
            f"version {listing.version}", "the states of streams are not known before 2.6: every port is held", "HAProxy 2.6 or later"
        )


def _worker(pid: int, worker: Worker | None, answer: str) -> Iterator[Finding]:
    if worker is None or worker.unreadable:
        yield Finding(f"worker {pid} cannot be read", worker.unreadable if worker else "it did not answer", "-S SOCKET,level,admin")
        return
    if worker.generation is None:
        why = "a worker that does not say what it was made from can never be known to lack a port"
        yield Finding("no generation", why, "setenv GEN 0    # in global; the seq of the log that the file is rendered from")
    described = bool(re.search(r"^description: .*\bGEN=\d+", answer, re.MULTILINE))
    if worker.generation is not None and not described:
        why = "the master hands GEN and RELAY on to later configurations that no longer set them; a description is not handed on"
        yield Finding(
            "stamps only in the environment", why, f"description GEN={worker.generation} RELAY={int(worker.relays)}    # in global"
        )
    if not worker.relays:
        why = "without it a port is held until every old worker has exited, up to hard-stop-after and a second"
        add = "setenv RELAY 1" + (f", and description GEN={worker.generation} RELAY=1" if described else "")
        yield Finding("no relay promise", why, f"{add}    # in global, once every frontend has `use_backend relay if {{ stopping }}`")


# ---------------------------------------------------------------------- what the text says

_Section = tuple[str, str, list[list[str]]]


def _sections(text: str) -> Iterator[_Section]:
    """(kind, name, lines as words); comments and empty lines are left out."""
    section: _Section = ("", "", [])
    for line in text.splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if words and words[0] in _SECTIONS and not line[0].isspace():
            yield section
            section = (words[0], words[1] if len(words) > 1 else "", [])
        elif words:
            section[2].append(words)
    yield section


def _lines(sections: Iterable[_Section], *kinds: str) -> Iterator[list[str]]:
    return (words for kind, _, lines in sections if kind in kinds for words in lines)


def _global(sections: Sequence[_Section]) -> Iterator[Finding]:
    keywords = {words[0] for words in _lines(sections, "global")}
    if "hard-stop-after" not in keywords:
        why = "without it an old worker may live as long as its slowest client"
        yield Finding("no hard-stop-after", why, "hard-stop-after 120s    # in global")
    if "grace" in keywords:
        yield Finding(
            "grace", "workers are `stopping` while they still listen: the relay would lead to themselves", "# grace    # take it out"
        )
    stamped = any("GEN" in words[1:2] or any(word.startswith("GEN=") for word in words) for words in _lines(sections, "global"))
    if not stamped:
        yield Finding(
            "GEN is not set in this file", "what workers say may come from an earlier configuration", "setenv GEN 0    # in global"
        )


def _routing(sections: Sequence[_Section]) -> Iterator[Finding]:
    promised = any(words[:3] == ["setenv", "RELAY", "1"] or "RELAY=1" in words for words in _lines(sections, "global"))
    for kind, name, lines in sections:
        rules = [words for words in lines if words[0] == "use_backend"]
        relays = bool(rules) and rules[0][2:] in (["if", "{", "stopping", "}"], ["if", "{stopping}"])
        routes = kind == "frontend" or (kind == "listen" and any(words[0] in _ROUTES for words in lines))
        if promised and routes and not relays:
            why = "RELAY says that every frontend relays while stopping: what this one still reads goes to old slots"
            yield Finding(
                f"{kind} {name} does not relay", why, f"use_backend relay if {{ stopping }}    # first use_backend of {kind} {name}"
            )


def _addresses(sections: Sequence[_Section], *, restores: bool) -> Iterator[Finding]:
    for words in _lines(sections, "defaults", "frontend", "backend", "listen"):
        line = " ".join(words)
        if line.startswith("option persist") or words[0] == "force-persist":
            yield Finding(line, "a cookie leads to a slot in maintenance: no answer shows it", "no option persist")
        if "set-dst" in line or "resolvers" in words:
            yield Finding(line, "the address is decided apart from the table of servers: no answer shows it", f"# {line}    # take it out")
        if words[0] == "dispatch" or line.startswith("option transparent"):
            yield Finding(line, "it leads to an address that is no slot of a table: no answer shows it", "server NAME ADDRESS:PORT")
        if words[0] in {"server", "server-template"} and any(_COUNTED.search(word) for word in words[2:4]):
            yield Finding(line, "the port is counted from the client's: no answer shows which it is", "server NAME ADDRESS:PORT")
        if words[0] == "load-server-state-from-file" and words[1:] != ["none"] and not restores:
            why = "a state file older than the release puts the port back at the next reload"
            yield Finding(line, why, "HAProxyWitness(..., state_file=...), or load-server-state-from-file none")


def _retries(sections: Sequence[_Section], *, retries_replies: bool) -> Iterator[Finding]:
    for words in _lines(sections, "defaults", "backend", "listen"):
        if words[0] == "retry-on" and not retries_replies and not set(words[1:]) <= _SAFE_RETRIES:
            why = "a stream that waits for a reply may connect once more"
            yield Finding(" ".join(words), why, "HAProxyWitness(..., retries_replies=True), or retry-on conn-failure")
