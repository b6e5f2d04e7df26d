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
import attrs
import structlog
from anyio.lowlevel import cancel_shielded_checkpoint

from portfsm import commands
from portfsm._decide import decide
from portfsm._dump import dump, load
from portfsm._index import index_of
from portfsm._ledger import Ledger, apply_all
from portfsm._replay import replay
from portfsm._waiters import Waiters
from portfsm._writer import Writer
from portfsm.clocks import Timeline
from portfsm.errors import CommandRejected, JournalFull, ManagerClosed, OutcomeUnknown, PoolExhausted, PortfsmError
from portfsm.protocols import CachingJournal
from portfsm.specs import check_overlaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from portfsm.events import Event
    from portfsm.protocols import Clock, Journal
    from portfsm.specs import PoolSpec
    from portfsm.values import Lease

__all__ = ["Engine"]

log = structlog.get_logger("portfsm")

SNAPSHOT_EVERY = 250_000
SNAPSHOT_AT_CLOSE = 10_000
"""A log shorter than this is read faster than a snapshot is worth."""

RECENT = 8_192
"""Durable events kept for watchers; one that falls further behind reads the log."""

CLOSE_S = 30.0
SLOW_SYNC_S = 1.0

_GROWING = (commands.Allocate, commands.Adopt, commands.Hold, commands.DefinePool)


@attrs.define
class Grant:
    """A lease begun and not yet seen by any caller; `waiting` counts the calls that await it."""

    lease: Lease
    waiting: int = 0


class Engine:
    """All that `PortManager` stands on. Made on the loop it will run on."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self.clock = clock
        self.cache = journal if isinstance(journal, CachingJournal) else None
        self.ahead = Ledger()
        self.published = Ledger()
        self.waiters = Waiters()
        self.grants: dict[int, Grant] = {}
        self.recent: deque[Event] = deque(maxlen=RECENT)
        self.news = anyio.Event()
        self.closing = False
        self.closed = False
        self.writer = Writer(journal, on_durable=self._publish, on_failure=self._fail)
        self._snapshot_seq = 0
        self._snapshot_due = False
        self._timer: anyio.CancelScope | None = None
        self._timeline: Timeline

    # ------------------------------------------------------------------ opening

    async def start(self, pools: Sequence[PoolSpec], *, holder: str, after_reboot: str, seeds: Sequence[str]) -> None:
        """Open the journal, replay it, record the opening and the pools."""
        try:
            epoch = await self.writer.call(lambda: self.journal.open(holder))
            self.ahead = await self.writer.call(self._recover)
            self._check_pools(pools)
            self.published = self.ahead.copy()
            self.writer.durable_seq = self.ahead.seq
            self._timeline = Timeline(self.clock, opened=self.ahead.opened, last_ts=self.ahead.ts)
            recovered = self.cache.recovered if self.cache else ""
            opening = commands.Open(
                epoch, holder, self._timeline.boot, self._timeline.opened_boot_ns, self.clock.wall_ns(),
                recovered=recovered, restart_holds=after_reboot == "restart",
            )  # fmt: skip
            self._commit(decide(self.ahead, opening, now_ns=self.now()))
            for spec, seed in zip(pools, seeds, strict=True):
                self._commit(decide(self.ahead, commands.DefinePool(spec, seed=seed), now_ns=self.now()))
            await self.writer.durable(self.ahead.seq)
        except BaseException:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self.writer.call(self.journal.close)
            self.writer.stop()
            raise
        if recovered:
            log.warning("portfsm.recovered", what=recovered, epoch=epoch)

    def _check_pools(self, pools: Sequence[PoolSpec]) -> None:
        """Refuse ports that another pool, known to the log alone, still has in use."""
        given = {spec.name for spec in pools}
        in_use = {pool.name for pool in self.ahead.select() if next(pool.offsets(), None) is not None} - given
        check_overlaps([*pools, *(spec for name, spec in self.ahead.specs.items() if name in in_use)])

    def _recover(self) -> Ledger:
        """In the writer's thread: the newest snapshot, then the events after it."""
        cached = self.cache.load_snapshot() if self.cache else None
        if cached is not None:
            ledger = Ledger()
            try:
                load(ledger, cached[1])
            except (ValueError, KeyError, TypeError, IndexError) as error:
                log.warning("portfsm.snapshot_ignored", seq=cached[0], error=str(error))
            else:
                self._snapshot_seq = ledger.seq
                return replay(self.journal.read(ledger.seq), onto=ledger)
        return replay(self.journal.read(0))

    # ------------------------------------------------------------------ deciding

    def now(self) -> int:
        """Log time, UTC ns."""
        return self._timeline.now()

    def submit(self, command: commands.Command) -> tuple[Event, ...]:
        """Decide, apply and hand over, in one step; then serve those who wait for what came free.

        Raises `CommandRejected`, or why the manager takes no calls.
        """
        events = self._record(command)
        if events and self.waiters:
            self.serve({(event.node, event.pool) for event in events})
        return events

    def _record(self, command: commands.Command) -> tuple[Event, ...]:
        self.check_open()
        if self.cache is not None and self.cache.full and isinstance(command, _GROWING):
            raise JournalFull("the journal's disk is full: make room; until then ports can be released but not given", path=None)
        events = decide(self.ahead, command, now_ns=self.now())
        self._commit(events)
        return events

    def _commit(self, events: Sequence[Event]) -> None:
        if events:
            apply_all(self.ahead, events)
            self.writer.push(events)

    def check_open(self) -> None:
        """Raise unless calls are taken."""
        if self.writer.failure is not None:
            raise self.writer.failure
        if self.closing:
            raise ManagerClosed("this manager was left: open another with open_manager()")

    async def settle(self, seq: int | None = None) -> None:
        """Return when the event `seq` (None: the last one decided) would survive a crash. A checkpoint in any case."""
        target = self.ahead.seq if seq is None else seq
        if target > self.writer.durable_seq:
            await self.writer.durable(target)
        else:
            await cancel_shielded_checkpoint()

    def leases_of(self, owner: str, node: str | None) -> tuple[Lease, ...]:
        """What `owner` holds, counting what is on its way to disk."""
        pools = self.ahead.select(node=node)
        return tuple(pool.lease(offset) for pool in pools if (offset := index_of(pool).holders.get(owner)) is not None)

    # ------------------------------------------------------------------ granting

    def grant(self, command: commands.Allocate) -> Lease:
        """Allocate now or raise. The caller owes a `received` or a `dropped` for the lease's token."""
        events = self._record(command)
        pool = self.ahead.pool(command.pool, command.node)
        lease = pool.lease(index_of(pool).holders[command.owner])
        if events:
            self.grants[lease.token] = Grant(lease)
        if (grant := self.grants.get(lease.token)) is not None:
            grant.waiting += 1
        return lease

    def received(self, token: int) -> None:
        """A caller has the lease: from now on only a release ends it."""
        self.grants.pop(token, None)

    def dropped(self, token: int) -> None:
        """A call that awaited the lease was cancelled. If it was the last, nobody knows of the lease: undo it."""
        grant = self.grants.get(token)
        if grant is None:
            return
        grant.waiting -= 1
        if grant.waiting > 0:
            return
        del self.grants[token]
        if self.closed or self.writer.failure is not None:
            log.warning("portfsm.lease_unreleased", token=token, port=grant.lease.port, owner=grant.lease.owner)
            return
        with suppress(CommandRejected):  # another hand may have ended it
            self._commit(decide(self.ahead, commands.Release(grant.lease, cause="cancelled"), now_ns=self.now()))
            self.serve({(grant.lease.node, grant.lease.pool)})

    def serve(self, places: Iterable[tuple[str, str]]) -> None:
        """Give what has become free to those who wait, and set the timer anew."""
        for place in places:
            self.waiters.serve(place, self.grant, partial(self._holds, place))
        self.poke()

    def _holds(self, place: tuple[str, str], owner: str) -> bool:
        node, pool = place
        return owner in index_of(self.ahead.pool(pool, node)).holders

    # ------------------------------------------------------------------ time

    def poke(self) -> None:
        """Make the timer look again: what it waits for may have changed."""
        if self._timer is not None:
            self._timer.cancel()

    async def run_timer(self) -> None:
        """Wake those who wait when a port falls due or their time is up. Sleeps while nobody waits."""
        while not self.closing:
            with anyio.CancelScope() as self._timer:
                wake = self._next_wake()
                if wake is None:
                    await anyio.sleep_forever()
                else:
                    await self.clock.sleep_until(wake)
            if self.writer.failure is None:
                self._tick()

    def _next_wake(self) -> int | None:
        """Boot clock ns of the next due port that somebody waits for, or of the next deadline."""
        pools = [self.ahead.pool(name, node) for node, name in self.waiters.places]
        dues = [due for pool in pools if (due := index_of(pool).next_due(pool)) is not None]
        deadlines = [waiter.deadline for waiter in self.waiters if waiter.deadline is not None]
        return min([self._timeline.boot_at(due) for due in dues] + deadlines, default=None)

    def _tick(self) -> None:
        self.serve(self.waiters.places)
        self.waiters.expire(self.clock.boot_ns(), self.refusal)

    def refusal(self, command: commands.Allocate) -> PortfsmError:
        """Why `command` gets no port now."""
        try:
            decide(self.ahead, command, now_ns=self.now())
        except CommandRejected as error:
            return error
        return PoolExhausted(
            f"others wait for pool {command.pool!r} and come first: pass wait_s= to queue up",
            node=command.node, pool=command.pool, counts={}, next_free_at=None, short_by=len(self.waiters),
        )  # fmt: skip

    # ------------------------------------------------------------------ what became of it

    def _publish(self, events: Sequence[Event]) -> None:
        """A batch is durable: show it."""
        self.published.fold(events)
        self.recent.extend(events)
        self._announce()
        if structlog.is_configured():
            for event in events:
                log.info(f"portfsm.{event.kind}", **_keys(event))
        if self.writer.slowest_s > SLOW_SYNC_S:
            log.warning("portfsm.slow_sync", seconds=round(self.writer.slowest_s, 3))
            self.writer.slowest_s = 0.0
        if self.cache is not None and self.published.seq - self._snapshot_seq >= SNAPSHOT_EVERY:
            self._snapshot_seq = self.published.seq
            self.writer.between_batches(partial(self._save_snapshot, self.published))

    def _save_snapshot(self, ledger: Ledger) -> None:
        if self.cache is not None:
            self.cache.save_snapshot(ledger.seq, dump(ledger))

    def _announce(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def _fail(self, error: PortfsmError) -> None:
        """The journal failed: stop, and leave nobody waiting."""
        log.error("portfsm.stopped", error=str(error))
        self.waiters.fail_all(error)
        self._announce()
        self.poke()

    async def stop(self) -> None:
        """Take no more calls, record the closing, let the journal go. Bounded by `CLOSE_S`."""
        self.waiters.fail_all(ManagerClosed("this manager is being left: nobody will be served any more"))
        self.closing = True
        with anyio.move_on_after(CLOSE_S, shield=True) as scope:
            try:
                if self.writer.failure is None:
                    await self.writer.durable(self.ahead.seq)
                    self._commit(decide(self.ahead, commands.Close(), now_ns=self.now()))
                    self.closed = True
                    await self.writer.durable(self.ahead.seq)
                    if self.published.seq - self._snapshot_seq >= SNAPSHOT_AT_CLOSE:
                        await self.writer.call(partial(self._save_snapshot, self.published))
            finally:
                self._announce()
                await self.writer.call(self.journal.close)
                self.writer.stop()
        if scope.cancelled_caught:
            raise OutcomeUnknown(
                f"closing took longer than {CLOSE_S:.0f} s: the disk hangs. What was acknowledged is safe; open the log again",
                path=None, errno=None,
            )  # fmt: skip


def _keys(event: Event) -> dict[str, object]:
    """An event's fields for structlog, empty ones left out."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "kind"}
    return {name: value for name, value in fields.items() if value not in ("", 0, None)}
