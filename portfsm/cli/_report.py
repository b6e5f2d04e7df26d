"""`portfsm report`: a log as one page that opens from disk, for those who were not there."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import sys
import tempfile
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import click

from portfsm._ledger import Ledger
from portfsm.audit import Step
from portfsm.audit import report as pages
from portfsm.cli import _options as options
from portfsm.cli._out import Bar, Out
from portfsm.cli._proof_shared import proof_of
from portfsm.cli._text import neutral
from portfsm.cli._times import NS, duration, rfc3339, time_text
from portfsm.cli._words import count, details, why
from portfsm.errors import InvalidValue
from portfsm.journals import past_of
from portfsm.journals._inspect import head_at
from portfsm.journals._urls import shown
from portfsm.states import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.audit import Moment
    from portfsm.audit.report import Found
    from portfsm.events import Event

__all__ = ["report"]

_PRIVATE = 0o600
"""As the log's own files: the page tells all that the log does."""
_MB = 1_000_000


@options.command(
    "portfsm report ports-log -o report.html",
    'portfsm report ports-log -o report.html --since "2h ago" --pool http',
    "portfsm report ports-log -o report.html --since 2026-08-01T14:00:00Z --until 2026-08-01T14:10:00Z",
)
@options.log
@click.option("-o", "--output", metavar="FILE", required=True, help="Where the page goes; - for stdout.")
@click.option("--since", type=options.TIME, metavar="TIME", help="Begin at this moment, with the ports as they were then.")
@click.option("--until", type=options.TIME, metavar="TIME", help="End with this moment.")
@click.option("--pool", multiple=True, metavar="NAME", help="Only this pool. Can be repeated.")
@click.option("--node", multiple=True, metavar="NAME", help="Only this node. Can be repeated.")
@options.as_json
@click.pass_context
def report(
    ctx: click.Context,
    log: str,
    output: str,
    since: Moment | None,
    until: Moment | None,
    pool: tuple[str, ...],
    node: tuple[str, ...],
    as_json: bool,  # noqa: FBT001
) -> int:
    """Make a page of a log, to look at and to send.

    How full the pools were, every port at every moment, each port's life, who came after whom and how soon, and whether the log is what was
    written. One file that needs no network. Exit code 1 if the log is damaged: the page then tells what stands before the damage.
    """
    _check_place(output)
    with _nothing_to_collect():
        found = _found(log, since, until, pool, node)
        _check_names(found, pool, node)
        facts = _facts(ctx, log, found, (*(f"pool {name}" for name in pool), *(f"node {name}" for name in node)))
        page, omitted = pages.page(found, facts, clean=neutral)
    _write(output, page)
    _tell(Out(as_json=as_json), output, page, found, facts, omitted)
    return 0 if facts.passed else 1


def _found(log: str, since: Moment | None, until: Moment | None, pools: tuple[str, ...], nodes: tuple[str, ...]) -> Found:
    """What the window tells, read from the nearest state before it on."""
    past = past_of(log)
    near = Ledger()
    if since is not None and since.seq != 0:
        near = past.nearest(seq=since.seq - 1) if since.seq is not None else past.nearest(ts=(since.ts or 0) - 1)
    last = next(past.events(near.seq - 1), None) if near.seq else None
    events = chain.from_iterable(Bar(log).watch_all(past.batches(near.seq)))
    closed = last is None or last.kind is EventKind.CLOSED
    return pages.collect(events, since=since, until=until, pools=pools, nodes=nodes, say=_said, onto=near, closed=closed)


def _said(event: Event) -> str:
    """What an event has to say beyond who and when."""
    return why(event) if event.port else details(Step(event, None, None, 0))


@contextlib.contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """The lives of a million ports are no garbage: looking through them for some, again and again, would be a third of the work."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_place(output: str) -> None:
    """Refuse what cannot become a file, before a long log is read for it."""
    folder = os.path.dirname(output) or "."
    if output == "-":
        if sys.stdout.isatty():
            raise click.UsageError("a page is no text for a terminal: name a file, or redirect stdout")
    elif os.path.isdir(output):
        raise click.UsageError(f"{output} is a directory: name a file in it, such as {os.path.join(output, 'report.html')}")
    elif not os.path.isdir(folder):
        raise click.UsageError(f"there is no directory {folder}: make it first")


def _check_names(found: Found, pools: tuple[str, ...], nodes: tuple[str, ...]) -> None:
    """A misspelt name must not make an empty page that looks like good news."""
    for what, asked, known in (("pool", pools, found.known_pools), ("node", nodes, found.known_nodes)):
        for name in asked:
            if name not in known:
                listed = ", ".join(map(repr, known)) or "none"
                raise InvalidValue(f"the log knows no {what} {name!r} up to there; it knows {listed}", name=what, value=name)


def _facts(ctx: click.Context, log: str, found: Found, asked: tuple[str, ...]) -> pages.Facts:
    """What else the page says: what was asked for, and whether the log is what was written."""
    proof = proof_of(log, None)
    head = str(head_at(log, found.last_seq)) if found.last_seq and found.damage is None else ""
    from importlib.metadata import version

    return pages.Facts(
        title=shown(log).rstrip("/") or log, made_ns=options.clock_of(ctx).wall_ns(), made_by=f"portfsm {version('portfsm')}", asked=asked,
        checks=tuple((check.mark, check.name, check.found) for check in proof.checks),
        passed=proof.passed and found.damage is None, verdict=proof.sentence(), head=head,
    )  # fmt: skip


def _write(output: str, page: bytes) -> None:
    """Whole or not at all: whoever has the old page open keeps it until the new one is there."""
    if output == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(page)
        return
    target = os.path.realpath(output)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else _PRIVATE
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe, or /dev/stdout
        with open(target, "wb") as file:
            file.write(page)
        return
    try:
        descriptor, path = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".report-", suffix=".html")
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", output) from error
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(page)
        os.replace(path, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _tell(out: Out, output: str, page: bytes, found: Found, facts: pages.Facts, omitted: pages.Omitted) -> None:
    """What was made; on stderr where the page itself goes to stdout."""
    if out.as_json:
        if output != "-":
            out.json(_json(output, page, found, facts, omitted))
        return
    say = out.note if output == "-" else partial(out.line, wrap=True)
    say(_sentence(output, page, found))
    if omitted.shorter_than_ns:
        short = duration(omitted.shorter_than_ns)
        say(f"States shorter than {short} that follow one another are drawn together: a page of a shorter window shows each.")
    if omitted.places:
        say(f"No room for the single ports of {count(omitted.places, 'place')}: --pool, --node or a shorter window shows them.")
    if found.damage is not None:
        out.note(str(found.damage))
    elif not facts.passed:
        out.note(facts.verdict)


def _json(output: str, page: bytes, found: Found, facts: pages.Facts, omitted: pages.Omitted) -> dict[str, object]:
    return {
        "file": output,
        "bytes": len(page),
        "events": found.events,
        "first_seq": found.first_seq or None,
        "last_seq": found.last_seq or None,
        "from": rfc3339(found.begins_ns) if found.begins_ns else None,
        "to": rfc3339(found.ends_ns) if found.ends_ns else None,
        "drawn_together_below_s": omitted.shorter_than_ns / NS or None,
        "places_left_out": omitted.places,
        "passed": facts.passed,
        "head": facts.head or None,
    }


def _sentence(output: str, page: bytes, found: Found) -> str:
    size = f"{len(page) / 1e6:.1f} MB" if len(page) >= _MB else f"{len(page) // 1000} kB"
    name = "the page" if output == "-" else output
    if not found.begins_ns:
        return f"{name}: {size}; the log has no events yet"
    if not found.events:
        return f"{name}: {size}; no event lies in this window, so it shows how the ports stood"
    span = f"{time_text(found.begins_ns)} to {time_text(found.ends_ns)}"
    return f"{name}: {size}; {count(found.events, 'event')} from @{found.first_seq} to @{found.last_seq}, {span}"
