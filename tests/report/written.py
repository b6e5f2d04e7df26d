"""Logs and pages of what a test writes."""

from __future__ import annotations

from pathlib import Path

from portfsm import Allocate, DefinePool, Ledger, Open, PoolSpec, Release, Sweep, decide
from portfsm._ledger import apply_all
from portfsm.audit import report
from portfsm.cli._text import neutral

SECOND = 1_000_000_000
BEGINS = 1_785_592_800 * SECOND


def write_page(path: Path, events, title="a log", **options) -> Path:
    found = report.collect(events)
    page, _ = report.page(found, report.Facts(title=title, made_ns=BEGINS, passed=True, verdict="it holds"), clean=neutral, **options)
    path.write_bytes(page)
    return path


class Log:
    """Events by the library's own rules, with a clock by hand."""

    def __init__(self, *specs: PoolSpec):
        self.ledger, self.events, self.now = Ledger(), [], BEGINS
        self.do(Open(1, "h", "boot", 1, self.now))
        for spec in specs:
            self.do(DefinePool(spec))

    def do(self, command):
        events = decide(self.ledger, command, now_ns=self.now)
        if events:
            apply_all(self.ledger, events)
        self.events += events
        return events

    def hold(self, owner, seconds, *, service="", node="", port=None):
        self.do(Allocate("p", owner=owner, service=service, node=node, port=port))
        lease = next(iter(self.ledger.find(owner)))
        self.now += int(seconds * SECOND)
        self.do(Release(lease))

    def wait(self, seconds):
        self.now += int(seconds * SECOND)
        self.do(Sweep())
