"""The machine at work: two ledgers, one writer, and those who wait.

Rule: `ahead` holds everything decided, also what is still on its way to disk, and decisions look at it alone;
`published` holds what is durable, and views, watchers and logs look at it alone. An event moves from the first
to the second when its sync has returned. Decide, apply and hand over happen in one step without an await, so
no two calls ever decide on the same state.

Calls of the manager are thin: they make a command, `submit` it here and wait for `durable`.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from portfsm import commands
from portfsm._cache import Cache
from portfsm._claims import Claims
from portfsm._decide import decide
from portfsm._index import index_of
from portfsm._leading import Lead, take_lead
from portfsm._ledger import Ledger, apply_all
from portfsm._log import tell, warn
from portfsm._overlaps import check_change, check_opening
from portfsm._pressure import next_relief
from portfsm._requests import MAY_WAIT, attempt, has_all, hopeless, refusal
from portfsm._terms import Terms
from portfsm._waiters import Grant, Waiters
from portfsm._writer import Writer
from portfsm.clocks import Timeline
from portfsm.errors import CommandRejected, JournalFull, ManagerClosed, OutcomeUnknown, PortfsmError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from portfsm._waiters import Waiter
    from portfsm._writer import Worker
    from portfsm.events import Event
    from portfsm.protocols import Clock, Journal
    from portfsm.specs import PoolSpec
    from portfsm.values import Lease

__all__ = ["Engine"]

RECENT = 8_192
"""Durable events kept for watchers; one that falls further behind reads the log."""

SLOW_SYNC_S = 1.0

_NEVER = 1 << 63

_GROWING = (commands.Allocate, commands.AllocateGroup, commands.Adopt, commands.Hold, commands.DefinePool)


class Engine:
    """All that `PortManager` stands on. Made on the loop it will run on."""

    def __init__(self, journal: Journal, clock: Clock, *, close_s: float, worker: Worker | None = None) -> None:
        self.journal = journal
        self.clock = clock
        self.close_s = close_s
        self.cache = Cache(journal)
        self.ahead = Ledger()
        self.published = Ledger()
        self.waiters = Waiters()
        self.terms = Terms(self)
        self.claims = Claims(self)
        self.grants: dict[int, Grant] = {}
        self.recent: deque[Event] = deque(maxlen=RECENT)
        self.news = anyio.Event()
        self.closing = False
        self.closed = False
        self.writer = Writer(journal, on_durable=self._publish, on_failure=self._fail, worker=worker, boot_ns=clock.boot_ns)
        self.lead = Lead(self)
        self.on_commit: Callable[[Sequence[Event]], object] = len  # nobody follows yet
        self._opened = False
        self._given: set[str] = set()
        """Pools that this controller named, unlike those that the log remembers."""
        self._timer: anyio.CancelScope | None = None
        self._wake_at = _NEVER
        self._timeline: Timeline

    # ------------------------------------------------------------------ opening

    async def start(
        self, pools: Sequence[PoolSpec], *, holder: str, after_reboot: str, seeds: Sequence[str], history: str = "kept", wait: bool = False
    ) -> None:
        """Open the journal (with `wait`, when nobody else has it), replay it, record the opening and the pools."""
        try:
            epoch = await take_lead(self.writer, partial(self._open_journal, holder), wait=wait)
            self.ahead = await self.writer.call(self.cache.restore)
            self._given = check_opening(self.ahead, pools)
            self.published = self.ahead.copy()
            self.writer.durable_seq = self.ahead.seq
            recovered = self.cache.recovered
            self._record_opening(epoch, holder, recovered, restart_holds=after_reboot == "restart", lost=history == "lost")
            for spec, seed in zip(pools, seeds, strict=True):
                self._commit(decide(self.ahead, commands.DefinePool(spec, seed=seed), now_ns=self.now()))
            await self.writer.durable(self.ahead.seq)
        except BaseException:
            with anyio.move_on_after(self.close_s, shield=True):
                await self._let_go()
            raise
        self.terms.restore()
        if recovered:
            warn("recovered", what=recovered, epoch=epoch)

    def _open_journal(self, holder: str) -> int:
        epoch = self.journal.open(holder)
        self._opened = True
        return epoch

    def _record_opening(self, epoch: int, holder: str, recovered: str, **policy: bool) -> None:
        line = self._timeline = Timeline(self.clock, opened=self.ahead.opened, last_ts=self.ahead.ts)
        opening = commands.Open(epoch, holder, line.boot, line.opened_boot_ns, self.clock.wall_ns(), recovered=recovered, **policy)
        # Stamped with the very reading it carries: the next opening takes the difference of the two for the time of the log.
        self._commit(decide(self.ahead, opening, now_ns=line.opened_ts))

    # ------------------------------------------------------------------ deciding

    def now(self) -> int:
        """Log time, UTC ns."""
        return self._timeline.now()

    def boot_at(self, ts: int) -> int:
        """When the boot clock will show what log time calls `ts`."""
        return self._timeline.boot_at(ts)

    def submit(self, command: commands.Command) -> tuple[Event, ...]:
        """Decide, apply and hand over, in one step; then serve those who wait for what came free.

        Raises `CommandRejected`, or why the manager takes no calls.
        """
        if self.terms:
            self.terms.expire()
        events = self.record(command)
        if events and self.waiters:
            self.serve(dict.fromkeys((event.node, event.pool) for event in events))
        return events

    def record(self, command: commands.Command) -> tuple[Event, ...]:
        self.check_open()
        events = decide(self.ahead, command, now_ns=self.now())
        if events and self.cache.full and isinstance(command, _GROWING):
            self.cache.seek_room(self.writer)
            raise JournalFull("the journal's disk is full: make room; until then ports can be released but not given", path=None)
        self._commit(events)
        return events

    def _commit(self, events: Sequence[Event]) -> None:
        if events:
            apply_all(self.ahead, events)
            self.writer.push(events)
            self.on_commit(events)
            if self.claims:
                self.claims.settle(events)

    def define(self, command: commands.DefinePool) -> None:
        """Put a pool in force, now; those who wait for it are served with what it has grown by."""
        name = command.spec.name
        check_change(self.ahead, command.spec, given=self._given)
        self.submit(command)
        self._given.add(name)
        changed = dict.fromkeys(place for place in self.waiters.places if place[1] == name)
        self.serve(changed | self.waiters.refuse(changed, partial(hopeless, self)))

    def check_open(self) -> None:
        """Raise unless calls are taken."""
        if self.writer.failure is not None:
            self.writer.check()
        if self.closing:
            raise ManagerClosed("this manager was left: open another with open_manager()")

    def settle(self, seq: int | None = None) -> Awaitable[None]:
        """Return when the event `seq` (None: the last one decided) would survive a crash, while this one leads. Always a checkpoint."""
        target = self.ahead.seq if seq is None else seq
        if self.lead.is_shared:
            return self.lead.settle(target)
        return self.writer.durable(target) if target > self.writer.durable_seq else cancel_shielded_checkpoint()

    # ------------------------------------------------------------------ granting

    def grant(self, command: commands.Allocate) -> Lease:
        """Allocate now or raise. The caller owes a `received` or a `dropped` for the lease's token."""
        events = self.begin(command)
        pool = self.ahead.pool(command.pool, command.node)
        lease = pool.lease(index_of(pool).holders[command.owner])
        if lease.expires_ns is not None:
            lease = self.terms.begin(lease)
        if events:
            self.grants[lease.token] = Grant(lease)
        if (grant := self.grants.get(lease.token)) is not None:
            grant.waiting += 1
        return lease

    def begin(self, command: commands.Allocate | commands.AllocateGroup) -> tuple[Event, ...]:
        """Begin leases, or note at least what came to its end in the pools that have no port to give."""
        try:
            return self.record(command)
        except MAY_WAIT:
            self._notice(command.places)
            raise

    def adopt(self, command: commands.Adopt) -> Lease:
        """Record that a live owner has the port. The lease stands from then on, whoever is cancelled: it is a fact."""
        with self.claims.noting(command):
            self.submit(command)
        pool = self.ahead.pool(command.pool, command.node)
        lease = pool.lease(pool.row(command.port))
        self.received(lease.token)
        self.waiters.serve_owner((command.node, command.pool), command.owner, partial(attempt, self), partial(has_all, self.ahead))
        return lease

    def received(self, token: int) -> None:
        """A caller has the lease: from now on only a release ends it."""
        self.grants.pop(token, None)

    def dropped(self, *tokens: int) -> None:
        """A call that awaited these leases was cancelled. Those it was the last to await nobody knows of: undo them."""
        places: dict[tuple[str, str], None] = {}
        for token in tokens:
            if (grant := self.grants.get(token)) is not None:
                grant.waiting -= 1
                if grant.waiting <= 0:
                    del self.grants[token]
                    self._undo(grant.lease)
                    places[grant.lease.node, grant.lease.pool] = None
        self.serve(places)

    def _undo(self, lease: Lease) -> None:
        if self.closed or self.writer.failure is not None:
            warn("lease_unreleased", token=lease.token, port=lease.port, owner=lease.owner)
            return
        with suppress(CommandRejected):  # another hand may have ended it
            self._commit(decide(self.ahead, commands.Release(lease, cause="cancelled"), now_ns=self.now()))

    # ------------------------------------------------------------------ waiting

    def must_queue(self, command: commands.Allocate | commands.AllocateGroup) -> bool:
        """Whether others wait and come first. Not before one whose owner has its port already: it takes nothing from them."""
        if self.terms:
            self.terms.expire()
        return bool(self.waiters) and any(map(self.waiters.has, command.places)) and not has_all(self.ahead, command)

    def wait(self, waiter: Waiter) -> None:
        """Queue up, and be served at once if there is something to be had."""
        self.check_open()
        self.waiters.add(waiter)
        self.wake_by(waiter.deadline)
        self.serve(waiter.places)

    def leave(self, waiter: Waiter) -> None:
        """A call waits no more: what it was given is given back, and what it kept from those behind it is theirs."""
        if waiter.leases:
            self.dropped(*(lease.token for lease in waiter.leases))
        elif waiter.queued:
            self.waiters.remove(waiter)
            self.serve(waiter.places)

    def serve(self, places: Iterable[tuple[str, str]]) -> None:
        """Give what has become free to those who wait, and see to it that the timer wakes for the next."""
        left = dict.fromkeys(places)
        while left:
            place = next(iter(left))
            del left[place]
            left |= self.waiters.serve(place, partial(attempt, self), partial(has_all, self.ahead))
            if self.waiters.has(place):
                self.wake_by(self._due(place))

    # ------------------------------------------------------------------ time

    def _due(self, place: tuple[str, str]) -> int | None:
        """Boot clock ns when the next hold or block of a pool ends, or its floor where that is enough."""
        node, name = place
        pool = self.ahead.pool(name, node)
        ends = [end for end in (index_of(pool).next_due(pool), next_relief(pool, self.now())) if end is not None]
        return self.boot_at(min(ends)) if ends else None

    def wake_by(self, boot_ns: int | None) -> None:
        """Wake the timer by then, if it would sleep longer. A wake-up for nothing is harmless."""
        if boot_ns is not None and boot_ns < self._wake_at:
            self._poke()

    def _poke(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def run_timer(self) -> None:
        """Wake those who wait when a port falls due or their time is up, and end leases not renewed. Sleeps while there is neither."""
        while not self.closing:
            with anyio.CancelScope() as self._timer:
                self._wake_at = self._next_wake()
                if self._wake_at == _NEVER:
                    await anyio.sleep_forever()
                else:
                    await self.clock.sleep_until(self._wake_at)
            if self.writer.failure is None and not self.closing:
                self._tick()

    def _next_wake(self) -> int:
        """Boot clock ns of the next due port that somebody waits for, of the next deadline, or of a lease's end."""
        wakes = [self._due(place) for place in self.waiters.places]
        return min((wake for wake in (*wakes, self.waiters.next_deadline(), self.terms.next_wake()) if wake is not None), default=_NEVER)

    def _tick(self) -> None:
        self.terms.expire()
        self._notice(self.waiters.places)
        self.serve(self.waiters.places)
        while left := self.waiters.expire(self.clock.boot_ns(), partial(refusal, self)):
            self.serve(left)

    def _notice(self, places: Iterable[tuple[str, str]]) -> None:
        """Record ends that have come. An `allocate` that fails records nothing, so a block's end would stay unseen."""
        boot_ns = self.clock.boot_ns()
        for place in places:
            if (due := self._due(place)) is not None and due <= boot_ns:
                node, pool = place
                self._commit(decide(self.ahead, commands.Sweep(pool=pool, node=node), now_ns=self.now()))

    # ------------------------------------------------------------------ what became of it

    def _publish(self, events: Sequence[Event]) -> None:
        """A batch is durable: show it."""
        self.published.fold(events)
        self.recent.extend(events)
        self._announce()
        tell(events)
        if self.writer.slowest_s > SLOW_SYNC_S:
            warn("slow_sync", seconds=round(self.writer.slowest_s, 3))
            self.writer.slowest_s = 0.0
        if self.cache.wanted(self.published.seq):
            self.writer.between_batches(self._save_snapshot)

    def _save_snapshot(self) -> None:
        """In the writer's thread, while nothing is published."""
        self.cache.save(self.published)

    def _announce(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def _fail(self, error: PortfsmError) -> None:
        """The journal failed: stop, and leave nobody waiting."""
        warn("stopped", error=str(error))
        self.waiters.fail_all(error)
        self.on_commit(())  # whoever follows finds out when it looks
        self._announce()
        self._poke()

    # ------------------------------------------------------------------ closing

    async def stop(self) -> None:
        """Take no more calls, record the closing, let the journal go. Bounded by `close_s`."""
        self.closing = True
        self.waiters.fail_all(ManagerClosed("this manager is being left: nobody will be served any more"))
        with anyio.move_on_after(self.close_s, shield=True) as scope:
            try:
                if self.writer.failure is None:
                    await self._record_closing()
            finally:
                await self._let_go()
        if scope.cancelled_caught:
            error = OutcomeUnknown(
                f"closing took longer than {self.close_s:g} s: the disk hangs. What was acknowledged is safe; open the log again",
                path=None, errno=None,
            )  # fmt: skip
            self.writer.fail(error)
            raise error

    async def _record_closing(self) -> None:
        await self.writer.durable(self.ahead.seq)
        while self.grants:  # durable, but their callers have yet to run: one that was cancelled still gives its port back
            await checkpoint()
        self._commit(decide(self.ahead, commands.Close(), now_ns=self.now()))
        self.closed = True
        await self.writer.durable(self.ahead.seq)
        if self.cache.wanted(self.published.seq, closing=True):
            await self.writer.call(self._save_snapshot)

    async def _let_go(self) -> None:
        """Close the journal, if it is open, and see the thread end; when that takes too long they go on alone."""
        try:
            await self.writer.call(self._close_journal)
        finally:
            self.writer.stop()
        self.writer.join()

    def _close_journal(self) -> None:
        if self._opened:
            try:
                self.journal.close()
            except Exception as error:  # noqa: BLE001  (against the protocol; the error that led here matters more)
                warn("close_failed", error=repr(error))
