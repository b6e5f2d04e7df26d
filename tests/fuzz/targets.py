"""What strangers' bytes go into. Each target takes any bytes: it returns, or raises the one error that is documented for it.

A target also checks what must hold of whatever was accepted: a log that opens can be written to and opens again, a text for a
terminal has no control characters, an answer of a proxy that was cut or garbled is never better than the whole one.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from pathlib import Path

import msgspec

from portfsm import InvalidValue, JournalError, PoolSpec, PortfsmError
from portfsm._scanner import Scanner
from portfsm.cli._text import neutral
from portfsm.cli._times import parse_seconds, parse_time
from portfsm.contrib import _port_wire as wire
from portfsm.contrib._peers import Process
from portfsm.errors import JournalTooNew
from portfsm.journals import FileJournal, open_journal
from portfsm.journals._etcd_url import parse as parse_etcd
from portfsm.journals._pg_place import Place as PgPlace
from portfsm.journals._reader import open_directory, read_directory
from portfsm.journals._urls import shown
from portfsm.testing import SimulatedDisk
from portfsm.testing.contract import sample_events
from portfsm.values import Head
from portfsm.witnesses._haproxy_answers import Unreadable, read_listing, read_worker
from portfsm.witnesses._haproxy_file import stamp
from portfsm.witnesses._haproxy_preflight import examine
from portfsm.witnesses._haproxy_rules import judge
from portfsm.witnesses._serving import RefusedError
from portfsm.witnesses._wire import Answers, Question

RECORDED = Path(__file__).parents[1] / "witnesses" / "recorded"
WORKER = (RECORDED / "worker.txt").read_text()
LISTING = (RECORDED / "listing.txt").read_text()
PID = 13_372
SECRET = "hunter2"
ASKED = (wire.Allocate, wire.AllocateGroup, wire.Release, wire.Renew)
SEGMENT = "/log/00000000000000000001.jsonl"


def a_log(*, close):
    disk = SimulatedDisk()
    journal = FileJournal("/log", disk=disk)
    journal.open("me")
    for event in sample_events(12):
        journal.append([event])
    journal.append(sample_events(5, after=12))
    if close:
        journal.close()
    return disk.killed()


CLOSED, LEFT_OPEN = a_log(close=True), a_log(close=False)


# ---------------------------------------------------------------------- the log


def scanner(data):
    """Bytes of a segment, in two pieces: what is believed does not depend on where they are cut."""
    whole, pieces = Scanner("segment"), Scanner("segment")
    with suppress(JournalTooNew):
        events = [*whole.feed(data), *whole.finish()]
        half = len(data) // 2
        again = [*pieces.feed(data[:half]), *pieces.feed(data[half:]), *pieces.finish()]
        assert events == again
        assert whole.good == pieces.good
        assert whole.good.offset <= len(data)


def log(data):
    """A directory whose only segment is this: it is refused, or it opens, is read the same by all, takes an event and opens again."""
    disk = LEFT_OPEN.killed()
    disk.overwrite(SEGMENT, data)
    with suppress(JournalError):
        read = list(read_directory(open_directory("/log", disk)))
        journal = FileJournal("/log", disk=disk)
        journal.open("fuzz")
        events = list(journal.read())
        assert events[: len(read)] == read or not events
        journal.append(sample_events(1, after=journal.head().seq))
        journal.close()
        assert list(read_directory(open_directory("/log", disk.killed())))[:-1] == events


# ---------------------------------------------------------------------- proxies


def haproxy_listing(data):
    with suppress(Unreadable):
        read_listing(data.decode(errors="replace"))


def haproxy_worker(data):
    """A worker's answers: whatever they are, one that does not tell a generation holds every port."""
    worker = read_worker(PID, data.decode(errors="replace"), old=False)
    if worker is not None:
        verdict = judge([worker], "10.9.8.7", 4, 1 << 62).verdict
        assert verdict.value == "HELD", "no worker has a generation as high as that"


def haproxy_file(data):
    text = data.decode(errors="replace")
    assert (stamp(text) or 0) >= 0
    examine(read_listing(LISTING), [(PID, WORKER)], text, "")


def agent(data):
    """What an agent is asked, and what it answers."""
    for kind in (Question, Answers):
        with suppress(ValueError):
            msgspec.json.decode(data, type=kind)


def port_server(data):
    """What a client of the port server asks, and an owner's name in a log that is its own."""
    text = data.decode(errors="replace")
    for read in (*(lambda kind=kind: wire.read_body(data, kind) for kind in ASKED), lambda: wire.read_query(text)):
        with suppress(RefusedError):
            read()
    owner = Process.of_owner(text)
    assert owner is None or Process.of_owner(owner.owner("1.1")) == owner


# ---------------------------------------------------------------------- people


def words(data):
    """What people type: names of logs, ranges, times, lengths of time."""
    text = data.decode(errors="replace")
    for parse in (
        lambda: open_journal(text),
        lambda: PoolSpec("p", ports=text),
        lambda: PoolSpec(text, ports="1-2"),
        lambda: parse_seconds(text),
    ):
        with suppress(PortfsmError):
            parse()
    with suppress(InvalidValue):
        parse_time(text, now_ns=1_700_000_000_000_000_000)
    with suppress(InvalidValue):
        Head.parse(text)


def urls(data):
    """Where a shared log lies: a place, or the one error, and never the password that stands before it."""
    text = data.decode(errors="replace")
    for parse, scheme in ((PgPlace.parse, "postgresql"), (parse_etcd, "etcd")):
        for url in (text, f"{scheme}://user:{SECRET}@{text}"):
            told = shown(url)
            with suppress(InvalidValue):
                try:
                    told += parse(url).shown
                except InvalidValue as error:
                    told += f"{error} {error.value!r}"
                    raise
                finally:
                    assert SECRET not in told or SECRET in text, told


def terminal(data):
    """A forged name moves no cursor."""
    shown = neutral(data.decode(errors="surrogateescape"))
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in shown)
    shown.encode()


TARGETS = {
    each.__name__: each for each in (scanner, log, haproxy_listing, haproxy_worker, haproxy_file, agent, port_server, words, urls, terminal)
}

SEEDS = {
    "scanner": [CLOSED.contents(SEGMENT), LEFT_OPEN.contents(SEGMENT)],
    "log": [CLOSED.contents(SEGMENT), LEFT_OPEN.contents(SEGMENT)],
    "haproxy_listing": [path.read_bytes() for path in sorted(RECORDED.glob("listing*.txt"))],
    "haproxy_worker": [path.read_bytes() for path in sorted(RECORDED.glob("*.txt"))],
    "haproxy_file": [b"global\n  setenv GEN 417\n  hard-stop-after 30s\nbackend b\n  option persist\n  server s 10.0.0.7:30000 check\n"],
    "agent": [
        b'{"proxy": "p", "places": [["10.0.0.7", 30000, 417]]}',
        b'{"answers": [{"incarnation": "1", "verdict": "CLEAR", "generation": 4, "reason": "no slot"}]}',
    ],
    "port_server": [
        b'{"pool": "p", "owner": "o", "port": 5, "ttl_s": 1.5, "wait_s": null}',
        b'{"requests": [{"pool": "p", "owner": "o", "count": 2, "contiguous": true}]}',
        b'{"token": 417, "block": "why", "for_s": 2}',
        b"pool=p&port=5000&node=n",
        b"pid:417:23456:0964c0e7:1.2",
    ],
    "words": [b"30000-30999,31500", b"2026-08-01T09:30:00Z", b"15m ago", b"@417", b"ports-log", b"postgresql://u:p@h:1/d?log=x", b"0.5s"],
    "urls": [
        b"postgresql://u:p@h:1/d?log=x",
        b"h,[::1]:5/d?log=x&sslmode=require&password=q",
        b"etcd://h:1,h:2/n?archive=d&tls=yes&ca=f",
        b"h/n?quota_mib=9",
    ],
    "terminal": ["replica-1 \x1b[2J\u202e\u2028 \udcff".encode(errors="surrogateescape"), b"plain"],
}
