"""The library with one safeguard off at a time. The simulation must notice each of them, or it proves nothing.

Rule: a break replaces one function of the library, while the context lasts, by what a plausible mistake would have made of it.
`python -m tests.simulation --broken NAME` shows what comes of it.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from functools import partial
from unittest import mock

import attrs

import portfsm.journals._mend
import portfsm.testing
from portfsm import (
    _codec,
    _decide,
    _decide_log,
    _engine,
    _evidence,
    _index,
    _lost,
    _pressure,
    _reconcile,
    _terms,
    _writer,
    clocks,
    commands,
)  # fmt: skip
from portfsm._pool import ALLOCATED, Pool
from portfsm.errors import OutcomeUnknown, PortfsmError
from portfsm.evidence import Verdict
from portfsm.journals import FileJournal, _disk, _lock
from portfsm.journals import _writer as _segment
from portfsm.journals._segments import Joint, Standing

BREAKS = {}
"""name -> a function that returns the context."""


def breaks(function):
    BREAKS[function.__name__] = function
    return function


def broken(name):
    """The context in which the safeguard `name` is off; with no name, none is."""
    return BREAKS[name]() if name else nullcontext()


def replaced(place, name, make):
    """`make` gets the function that stands there and returns another."""
    return mock.patch.object(place, name, make(getattr(place, name)))


def nothing(*_, **__):
    return None


# ---------------------------------------------------------------------- the disk


@breaks
def no_sync():
    """Events are acknowledged when they are in the kernel's cache."""
    return mock.patch.object(portfsm.testing.SimulatedDisk, "fdatasync", nothing)


@breaks
def no_directory_sync():
    """A new segment's name may be forgotten."""
    return mock.patch.object(_disk.Directory, "sync", nothing)


@breaks
def no_rewrite_at_opening():
    """What a crash or a failed sync left in the cache is sealed as it is, and believed."""

    def seal_only(directory, segment, ending, reserve):
        fd = directory.disk.open(directory.at(segment.name), os.O_RDWR)
        pieces = [*portfsm.journals._mend._good(directory, segment, ending), portfsm.journals._mend._seal_of(segment, ending)]
        directory.disk.ftruncate(fd, ending.good.offset)
        _disk.write_all(directory.disk, fd, b"".join(pieces)[ending.good.offset :], ending.good.offset)
        directory.disk.fsync(fd)
        directory.disk.close(fd)

    return mock.patch.object(portfsm.journals._mend, "_seal", seal_only)


@breaks
def no_second_look_at_the_seal():
    """A seal whose sync failed is believed, because the cache still shows it."""
    return mock.patch.object(portfsm.journals._mend, "reaffirm", nothing)


@breaks
def sync_again():
    """A failed sync is tried once more: the kernel calls the lost pages clean, so it succeeds."""

    def make(append_all):
        def again(self, events):
            try:
                append_all(self, events)
            except OutcomeUnknown:
                segment = self._journal._writer
                if segment is None:
                    raise
                self._journal._stopped = None
                segment._disk.fdatasync(segment._fd)
                segment.size = segment._disk.fstat(segment._fd).st_size
                segment.head = (events[-1].seq, segment.head[1])

        return again

    return replaced(_writer.Writer, "_append_all", make)


@breaks
def batches_torn_apart():
    """Each line stands for itself: a crash may keep half of a decision."""

    def make(encode):
        return lambda self, events: b"".join(encode(self, [event]) for event in events)

    return replaced(_codec.Encoder, "encode", make)


@breaks
def too_much_cut_off():
    """At a torn tail the whole segment is given up."""

    def make(look):
        def eager(self):
            look(self)
            found = self._standing
            if found.ending is not None and found.ending.torn_bytes:
                header = found.segments[-1].header
                self._joint = Joint(header.no, header.base, header.prev)
                self._standing = Standing(found.segments[:-1], None, self._joint)

        return eager

    return replaced(FileJournal, "_look", make)


@breaks
def no_epoch_check():
    """A writer that was superseded goes on writing."""
    return mock.patch.object(_lock.Lock, "check", nothing)


@breaks
def no_look_before_writing():
    """A writer notices only behind its write that it was superseded, and takes the write back."""

    def put(self, data):
        self._write(self._fd, data)
        try:
            self._lock.check()
        except BaseException:
            self._disk.ftruncate(self._fd, self.size)
            raise
        self._disk.fdatasync(self._fd)
        self.size += len(data)

    return mock.patch.object(_segment.Writer, "_put", put)


# ---------------------------------------------------------------------- the engine


@breaks
def published_before_durable():
    """Views, watchers and callers are told, then the disk writes."""

    def eager(self, batch):
        self._tell(self._finished, batch, None, 0.0)
        with suppress(PortfsmError):
            self._append_all(batch.events)

    return mock.patch.object(_writer.Writer, "_append", eager)


@breaks
def applied_without_journal():
    """What a sweep frees is applied and not recorded."""

    def make(commit):
        def forgetful(self, events):
            return commit(self, [] if events and all(event.cause == "elapsed" for event in events) else events)

        return forgetful

    return replaced(_engine.Engine, "_commit", make)


@breaks
def cancelled_leaks():
    """A lease whose caller was cancelled stays."""
    return mock.patch.object(_engine.Engine, "dropped", nothing)


@breaks
def cancelled_takes_all():
    """The first of several callers that is cancelled gives the lease of all back."""

    def make(dropped):
        def eager(self, *tokens):
            for token in tokens:
                if token in self.grants:
                    self.grants[token].waiting = 1
            dropped(self, *tokens)

        return eager

    return replaced(_engine.Engine, "dropped", make)


@breaks
def overtaking():
    """Whoever comes while others wait may take what is free, if there is something."""
    return mock.patch.object(_engine.Engine, "must_queue", lambda *_: False)


@breaks
def nobody_wakes():
    """The timer tells those whose time is up, and serves nobody."""

    def tick(self):
        self.waiters.expire(self.clock.boot_ns(), partial(_engine.refusal, self))

    return mock.patch.object(_engine.Engine, "_tick", tick)


# ---------------------------------------------------------------------- the rules


@breaks
def no_hold_on_release():
    """Released is free."""

    def make(end):
        def freed(self, pool, offset, cause, *, evidence=""):
            hold_ns, pool.hold_ns = pool.hold_ns, 0
            end(self, pool, offset, cause, evidence=evidence)
            pool.hold_ns = hold_ns

        return freed

    return replaced(_decide.Draft, "end", make)


@breaks
def no_hold_after_a_block():
    """Unblocked is free."""

    def make(unblock):
        def freed(self, pool, offset, cause, reason="", *, free=True):
            hold_ns, pool.hold_ns = pool.hold_ns, 0
            unblock(self, pool, offset, cause, reason, free=free)
            pool.hold_ns = hold_ns

        return freed

    return replaced(_decide.Draft, "unblock", make)


@breaks
def no_new_hold_at_reboot():
    """A machine that restarts goes on with the old ends of holds."""
    return mock.patch.object(_decide_log, "_restart", nothing)


@breaks
def no_token_check():
    """Whoever once had a lease on the port may release it."""

    def release(command, ledger, draft):
        pool, offset = _decide._leased(ledger, command.lease)
        if pool.state[offset] == ALLOCATED:
            draft.end(pool, offset, command.cause)

    return mock.patch.dict(_decide._PLANS, {commands.Release: release})


@breaks
def no_patience():
    """A lease that was missed once is released."""
    return mock.patch.object(_reconcile, "ABSENCES", 1)


@breaks
def what_is_seen_resets_nothing():
    """A sighting does not take back what was counted before."""
    return mock.patch.object(_reconcile.Scene, "is_seen", lambda *_: False)


@breaks
def holds_by_the_wall_clock():
    """Log time is what the wall clock says."""
    return mock.patch.object(clocks.Timeline, "now", lambda self: self._clock.wall_ns())


@breaks
def index_forgets_a_freed_port():
    """The search for a free port never goes back to a lower one."""

    def make(touched):
        def forgetful(self, pool, *args):
            hint = self.hint
            touched(self, pool, *args)
            self.hint = max(hint, self.hint)

        return forgetful

    return replaced(_index.Index, "touched", make)


# ---------------------------------------------------------------------- evidence


@breaks
def earlier_answers_count():
    """A late answer about a lease that ended before is taken for one about the last."""

    def take_answer(self, place, answer):
        self._void_if_changed(answer)
        if place in self.open:
            self.open[place].answers[answer.proxy] = answer

    return mock.patch.object(_evidence.Cases, "take_answer", take_answer)


@breaks
def one_proxy_is_enough():
    """A hold ends with the first proxy that lets go."""

    def is_complete(self, case, required, bounds, now_ns):
        return any(proxy in bounds and case.has_let_go(proxy, bounds[proxy], now_ns) for proxy in required)

    return mock.patch.object(_evidence.Cases, "is_complete", is_complete)


@breaks
def kept_no_longer_than_held():
    """A hold's end frees what a proxy has not let go of."""
    return mock.patch.object(Pool, "kept", False)


@breaks
def restarted_proxies_are_believed():
    """What a proxy said before it began anew still counts."""
    return mock.patch.object(_evidence.Cases, "_void_if_changed", nothing)


@breaks
def silence_is_consent():
    """A proxy that gives no answer has let go."""

    def make(has_let_go):
        def trusting(self, proxy, fallback_s, now_ns):
            answer = self.answers.get(proxy)
            return (answer is not None and answer.verdict is Verdict.UNKNOWN) or has_let_go(self, proxy, fallback_s, now_ns)

        return trusting

    return replaced(_evidence.Case, "has_let_go", make)


@breaks
def evidence_beats_the_floor():
    """What every proxy let go of is free at once."""
    return mock.patch.object(Pool, "evidence_frees_at", lambda *_: 0)


# ---------------------------------------------------------------------- leases that end


@breaks
def leases_end_early():
    """A ttl counts half."""
    return replaced(_terms.Terms, "_ttl_ns", lambda right: lambda self, lease: right(self, lease) // 2)


@breaks
def leases_never_end():
    """Nobody looks."""
    return mock.patch.object(_terms.Terms, "expire", nothing)


@breaks
def restart_forgets_ttls():
    """Only leases of this controller end."""
    return mock.patch.object(_terms.Terms, "restore", nothing)


# ---------------------------------------------------------------------- what the pools' authors asked for


@breaks
def holds_cut_off_without_need():
    """A full pool is pressed, however little is held back."""
    return mock.patch.object(_pressure, "is_pressed", lambda pool: True)


@breaks
def no_hard_quota():
    """A service takes what it can get."""
    return mock.patch.object(_decide, "check_hard", nothing)


@breaks
def no_soft_quota():
    """What is kept for a service is given to another."""
    return mock.patch.object(_decide, "check_soft", nothing)


@breaks
def no_band():
    """The lowest ports are given like any other."""
    return replaced(_decide, "choose", lambda right: lambda pool, *rest: right(_without_band(pool), *rest))


def _without_band(pool):
    other = pool.copy()
    other.spec = attrs.evolve(pool.spec, static=0)
    return other


@breaks
def a_change_not_heard_by_those_who_wait():
    """A pool that grew serves those who waited for it when something else happens."""
    return replaced(_engine.Engine, "define", lambda right: lambda self, command: self.submit(command))


# ---------------------------------------------------------------------- a log that was lost


@breaks
def a_lost_history_is_believed():
    """What the copy of the log says of free ports is taken for true."""
    return replaced(
        _engine.Engine, "start", lambda right: lambda self, *args, **options: right(self, *args, **{**options, "history": "kept"})
    )


@breaks
def a_loss_holds_for_half_the_time():
    """The hold after a loss is not a full one."""
    return replaced(
        _lost, "is_over", lambda right: lambda pool, now_ns: pool.lost is not None and pool.lost.until - pool.hold_ns // 2 <= now_ns
    )
