"""`open_manager` and `PortManager`: ports for an async program, on asyncio and trio alike.

Every call that changes something returns when its events are durable, and raises before anything happened or
not at all. Calls are idempotent: repeat one after a lost reply and nothing new is recorded. The synchronous
views show what is durable and nothing else.
"""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from portfsm import commands
from portfsm._engine import Engine
from portfsm._faults import finding
from portfsm._leading import check_leading, keep_leading
from portfsm._listen import BLOCK_S, Listening, Wanted
from portfsm._log import warn
from portfsm._operator import Operator
from portfsm._pressure import patience_s
from portfsm._reconciler import Reconciler
from portfsm._requests import MAY_WAIT, grant_group, leases_of, queue_up, refusal
from portfsm._waiters import Waiter
from portfsm._warden import Warden, check_witnesses
from portfsm.clocks import SystemClock
from portfsm.errors import InvalidValue, PoolExhausted, PortfsmError
from portfsm.journals import open_journal
from portfsm.protocols import Clock
from portfsm.specs import check_overlaps, check_seconds, check_specs, check_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from portfsm._occupants import Kind
    from portfsm.evidence import Witness
    from portfsm.groups import Request
    from portfsm.observation import Observation, ReconcileReport
    from portfsm.protocols import Journal
    from portfsm.sockets import BoundLease, Holder
    from portfsm.specs import PoolSpec
    from portfsm.values import Lease

__all__ = ["PortManager", "open_manager"]


@asynccontextmanager
async def open_manager(
    journal: str | os.PathLike[str] | Journal,
    *,
    pools: Iterable[PoolSpec] = (),
    clock: Clock | None = None,
    witnesses: Iterable[Witness] = (),
    address_of: Mapping[str, str] | Callable[[str], str] | None = None,
    after_reboot: Literal["restart", "remaining"] = "restart",
    history: Literal["kept", "lost"] = "kept",
    role: Literal["lead", "lead-or-wait"] = "lead",
    lease_s: float = 10.0,
    holder: str | None = None,
    close_s: float = 30.0,
) -> AsyncIterator[PortManager]:
    """Open a log for writing, replay it, and manage its ports until the block is left.

    `journal`: a directory (made if missing), a `postgresql://` or `etcd://` URL, `"memory:"`, or a `Journal`. `pools`: those to put in
    force; pools that the log knows and this list does not stay as they were. `witnesses`: each joins (see `PortManager.join`).
    `address_of`: what proxies call a node; by default its own name, and 127.0.0.1 for the node "". `after_reboot`: whether every hold
    starts over in full after a restart of the machine, or goes on with what the wall clock leaves of it. `history`: `"lost"` when the
    log was lost or is an older copy, so that what it says of free ports is not to be relied on: every port that is not allocated is
    held for a full hold (cause `lost`, RFC 6888's rule), and `adopt` takes those out of it that live replicas prove. For one opening;
    the next goes on from there. `role`: `"lead-or-wait"` waits while another manager has the log open and takes over when it closes it,
    or has given no sign of life for `lease_s` seconds (shared journals; it is then refused whatever it still tries). `holder`:
    tells people who has the log open; host and process by default. `close_s`: how long leaving waits for a disk that hangs.

    Raises `JournalLocked` while another writer has it, `JournalCorrupt` at damage (nothing is changed then),
    `JournalUnreadable`, `JournalTooNew`, `InvalidValue` for pools that overlap. What the block raises comes out as it
    is; a fault of the journal while leaving comes out only if the block raised nothing.
    """
    if history not in ("kept", "lost"):
        raise InvalidValue(f'history is "kept" or "lost", not {history!r}', name="history", value=history)
    specs = check_specs(pools)
    check_overlaps(specs)
    present = check_witnesses(witnesses)
    if clock is not None and (isinstance(clock, type) or not isinstance(clock, Clock)):
        raise InvalidValue(f"clock must be a portfsm.Clock, such as SystemClock(), not {clock!r}", name="clock", value=clock)
    name = check_text("holder", holder if holder is not None else f"{socket.gethostname()} pid {os.getpid()}", required=True)
    clock = clock if clock is not None else SystemClock()
    kept = open_journal(journal, clock=clock, lease_s=check_seconds("lease_s", lease_s))
    check_leading(role, after_reboot, kept)
    engine = Engine(kept, clock, close_s=check_seconds("close_s", close_s))
    seeds = [os.urandom(16).hex() for _ in specs]
    await engine.start(specs, holder=name, after_reboot=after_reboot, seeds=seeds, history=history, wait=role != "lead")
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    tasks.start_soon(engine.run_timer)
    tasks.start_soon(keep_leading, engine)
    warden = Warden(engine, tasks, address_of=address_of)
    raised: BaseException | None = None
    try:
        for witness in present:
            await warden.join(witness)
        yield PortManager(engine, warden)
    except BaseException as error:
        raised = error
        raise
    finally:
        await _leave(engine, tasks, raised)


async def _leave(engine: Engine, tasks: TaskGroup, raised: BaseException | None) -> None:
    """Stop the engine and its timer. The group is left by hand: its own way wraps what the block raised in an `ExceptionGroup`."""
    try:
        try:
            await engine.stop()
        finally:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)
    except (PortfsmError, anyio.get_cancelled_exc_class()) as error:
        if raised is None:
            raise
        if isinstance(error, PortfsmError):
            warn("close_failed", error=str(error))


def _patience_s(engine: Engine, command: commands.Allocate | commands.AllocateGroup, error: PortfsmError) -> float:
    """How long a call waits that asked not to: not at all, unless a pool that lacks ports has a policy that says so."""
    if not isinstance(error, PoolExhausted) or (isinstance(command, commands.Allocate) and command.port is not None):
        return 0.0
    lacking = {(error.pool, error.node), *((view.pool, view.node) for view in getattr(error, "in_the_way", ()))}
    return max(patience_s(engine.ahead.pool(pool, node)) for pool, node in lacking)


class PortManager(Operator):
    """The ports of one log. Made by `open_manager`; all calls belong on the event loop it was made on."""

    def __init__(self, engine: Engine, warden: Warden) -> None:
        super().__init__(engine, warden)
        self._reconciler = Reconciler(engine)
        self._listening = Listening(engine, self.allocate)

    # ------------------------------------------------------------------ leases

    async def allocate(
        self,
        pool: str,
        *,
        owner: str,
        node: str = "",
        service: str = "",
        port: int | None = None,
        ttl_s: float | None = None,
        wait_s: float | None = 0.0,
    ) -> Lease:
        """A lease on a port of `pool` for `owner`; the one it holds already, if it does.

        Preferred: the owner's own quarantined port, then its service's, then the pool's order. `port` asks for one
        number. `wait_s`: 0 fails at once (unless the pool says `on_pressure="wait"`), a number waits at most so many seconds, None for
        ever; those who wait are served first come first served, and nobody overtakes them.

        `ttl_s`: the lease ends by itself after that time (`released`, cause `expired`, then the hold) unless `renew` is called. Asking
        again renews it, too: who asks for `ttl_s` seconds gets them. The time counts from the return of the call, and after a restart
        of the controller from there.

        Raises `PoolExhausted`, `QuotaExceeded`, `PortUnavailable`, `PortOutOfRange`, `OwnerConflict` (the owner holds a port for another
        service, with another ttl, or another number), `UnknownPool`, `InvalidValue`, `JournalFull`, `ManagerClosed`, or what
        stopped the journal.
        """
        command = commands.Allocate(pool, owner=owner, node=node, service=service, port=port, ttl_s=ttl_s)
        if wait_s is not None:
            check_seconds("wait_s", wait_s)
        await checkpoint_if_cancelled()
        engine = self._engine
        if engine.must_queue(command):
            lease = (await self._queue(command, wait_s))[0]
        else:
            try:
                lease = engine.grant(command)
            except MAY_WAIT as error:
                wait_s = wait_s if wait_s != 0 else _patience_s(engine, command, error)
                if wait_s == 0:
                    raise
                lease = (await self._queue(command, wait_s))[0]
        self._reconciler.saw(lease)
        try:
            await engine.settle(lease.token)
        except BaseException:
            engine.dropped(lease.token)  # which ends the lease, unless another call awaits it
            raise
        engine.received(lease.token)
        return lease if lease.expires_ns is None else engine.terms.begin(lease)

    async def allocate_group(self, requests: Iterable[Request], *, wait_s: float | None = 0.0) -> tuple[Lease, ...]:
        """The leases that `requests` ask for, all of them or none, in one batch of the log: by request, then by index.

        Several pools for one owner, one number on several nodes (`same_port`), several ports (`count`), or a block of them
        (`contiguous`, `align`, `stride`); see `Request`. Quarantined ports are taken over as in `allocate`: by their own owner and
        service alone. A repeat returns the same leases and records nothing. One that finds only some of them allocates the rest
        so that they fit those, or raises `OwnerConflict` where those cannot be part of what it asks for. `wait_s` is as in
        `allocate`: a group that waits is one caller in the queues of all its pools, and whoever comes later passes it in none of them.

        Raises `GroupUnavailable` (a `PoolExhausted`), naming the ports in the way and when they are free, `InvalidValue` for what
        these pools could never give, and what `allocate` raises.
        """
        command = commands.AllocateGroup(requests)
        if wait_s is not None:
            check_seconds("wait_s", wait_s)
        await checkpoint_if_cancelled()
        engine = self._engine
        try:
            leases = queue_up(engine, command) if engine.must_queue(command) else grant_group(engine, command)
        except MAY_WAIT as error:
            wait_s = wait_s if wait_s != 0 else _patience_s(engine, command, error)
            if wait_s == 0:
                raise
            leases = ()
        leases = leases or await self._queue(command, wait_s)
        tokens = [lease.token for lease in leases]
        for lease in leases:
            self._reconciler.saw(lease)
        try:
            await engine.settle(max(tokens))
        except BaseException:
            engine.dropped(*tokens)  # which ends those that no other call awaits
            raise
        for token in tokens:
            engine.received(token)
        return leases

    async def _queue(self, command: commands.Allocate | commands.AllocateGroup, wait_s: float | None) -> tuple[Lease, ...]:
        engine = self._engine
        wait_s = wait_s if wait_s != 0 else _patience_s(engine, command, refusal(engine, command))
        waiter = Waiter(command, None if wait_s is None else engine.clock.boot_ns() + round(wait_s * 1e9))
        engine.wait(waiter)
        if wait_s == 0 and not waiter.woken.is_set():
            engine.leave(waiter)
            raise refusal(engine, command)
        try:
            await waiter.woken.wait()
        except BaseException:
            engine.leave(waiter)
            raise
        if not waiter.leases:
            raise waiter.error or refusal(engine, command)
        return waiter.leases

    @asynccontextmanager
    async def lease(
        self, pool: str, *, owner: str, node: str = "", service: str = "", port: int | None = None,
        ttl_s: float | None = None, wait_s: float | None = 0.0,
    ) -> AsyncIterator[Lease]:  # fmt: skip
        """`allocate` on entry, `release` on the way out, also when cancelled.

        What the block raises comes out as it is; a release that fails comes out only if the block raised nothing. A lease with
        `ttl_s` is not renewed here: call `renew` in the block. `StaleLease` on the way out says that its time was up before the block
        was, and that another has had the port since.
        """
        lease = await self.allocate(pool, owner=owner, node=node, service=service, port=port, ttl_s=ttl_s, wait_s=wait_s)
        try:
            yield lease
        except BaseException:
            with suppress(PortfsmError):
                await self._give_back(lease)
            raise
        else:
            await self._give_back(lease)

    async def _give_back(self, lease: Lease) -> None:
        with anyio.move_on_after(self._engine.close_s, shield=True):
            await self.release(lease)

    async def release(self, lease: Lease, *, block: str | OSError | None = None, for_s: float | None = None) -> None:
        """End `lease`; its port is held back for the pool's hold. Repeated: nothing happens.

        With `block`, the reason why nobody can use the port, it goes to BLOCKED instead, for `for_s` seconds or until
        unblocked. `for_s` doubles with each time that the port is blocked for the same cause, up to a day, until a lease on it
        ends by a plain release. `block` may be the `OSError` that listening raised: its `errno` is kept, and it is refused
        (`InvalidValue`) when it is not the port's fault, such as a missing permission. Raises `StaleLease` when the port has had another
        lease since; nothing is changed then.
        """
        engine = self._engine
        commands.check_lease(lease)
        if block is None:
            engine.submit(commands.Release(lease, for_s=for_s, evidence=self._warden.evidence_for(lease)))
        else:
            reason, errno = finding("block", block)
            engine.submit(commands.Release(lease, block=reason, for_s=for_s, errno=errno))
        await engine.settle()

    async def renew(self, lease: Lease) -> Lease:
        """The owner is alive: the ttl of `lease` starts again. The lease with its new end; one without a ttl is returned as it is.

        Nothing is recorded and nothing awaited from the disk, so renewing is cheap: three times in a ttl leaves room for two that fail.
        (A shared journal that this manager gave no sign of life for a while is asked first who leads: `Fenced`, `JournalUnreadable`.)
        Raises `StaleLease` when the lease has ended, by its ttl or otherwise: the owner must stop listening there and allocate again.
        """
        commands.check_lease(lease)
        await checkpoint_if_cancelled()
        renewed = self._engine.terms.renew(lease)
        self._reconciler.saw(renewed)
        await self._engine.settle(lease.token)
        return renewed

    async def withdraw(self, lease: Lease) -> None:
        """Record that the proxies were told to stop routing to the lease's port, while its owner still drains.

        Witnesses are asked from now on. When all have let go before `release`, the port is FREE in the same step.
        """
        await self._submit(commands.Withdraw(lease))

    async def wait_clear(self, lease: Lease, *, timeout_s: float | None = None) -> bool:
        """Wait until every required proxy has let go of a withdrawn or released port; False when the time is up first.

        With no proxy required that is when the port's hold has ended. What the answer rests on is durable, which may take
        longer than `timeout_s` on a disk that hangs. Raises `InvalidValue` for a lease that was neither
        withdrawn nor released, `ManagerClosed`, or what stopped the journal.
        """
        if timeout_s is not None:
            check_seconds("timeout_s", timeout_s)
        commands.check_lease(lease)
        await checkpoint_if_cancelled()
        return await self._warden.wait_clear(lease, timeout_s=timeout_s)

    async def release_owner(self, owner: str, *, node: str | None = None) -> tuple[Lease, ...]:
        """Release everything `owner` holds, on every node or one, and return the leases that this call ended."""
        command = commands.ReleaseOwner(owner, node=node)
        held = leases_of(self._engine, owner, node)
        self._engine.claims.drop(owner, node)
        ended = {event.token for event in self._engine.submit(command)}
        await self._engine.settle()
        return tuple(lease for lease in held if lease.token in ended)

    async def adopt(self, pool: str, port: int, *, owner: str, node: str = "", service: str = "") -> Lease:
        """A lease for a port that a live owner proves it uses, whatever the log says of it.

        A port quarantined for somebody else, blocked, or outside the range is adopted all the same and the event's
        `reason` says so; outside the range it retires when released. Raises `OwnerConflict` when another owner
        holds the port, or this one holds another port of the pool (`conflict` says which). Where two owners claim a port, the end of the
        holder's lease does not give it to anybody: it is BLOCKED, cause `conflict`, until the claimant adopts it or somebody unblocks
        it. The claim is forgotten when its owner turns out to be elsewhere, is released, or the controller restarts. A call that is
        cancelled once it was recorded leaves the lease in place: it states what is so.
        """
        command = commands.Adopt(pool, port, owner=owner, node=node, service=service)
        await checkpoint_if_cancelled()
        lease = self._engine.adopt(command)
        self._reconciler.saw(lease)
        await self._engine.settle()
        return lease

    async def reconcile(self, observation: Observation, *, leak_grace_s: float = 60.0, dry_run: bool = False) -> ReconcileReport:
        """Compare the record with what was seen, report every difference, and release what has leaked for certain.

        A lease has leaked when three complete observations, each begun after it and `leak_grace_s` or more apart, saw
        neither its port nor, elsewhere in the pool, its owner; an `allocate` or `adopt` that is answered with it counts as a sighting. It
        goes to QUARANTINED, `cause="reconciled"`; at most a tenth of a pool's leases in a call (at least one), oldest first, and
        none while over half of the pool's leases look leaked (`report.breaker`). So 2 * `leak_grace_s` must be longer than a
        replica takes to start. Nothing is adopted: `report.unknown` is for the caller.

        With `dry_run` nothing changes, not even the counts. Counts are kept in memory: opening again begins them anew.
        Raises `InvalidValue` for an observation from the future or from before this opening, `UnknownPool` for a
        sighting in a pool that is not defined, `ManagerClosed`, or what stopped the journal. One call's releases are each
        recorded by itself: a call that is cancelled leaves the rest to the next.
        """
        return await self._reconciler.reconcile(observation, leak_grace_s=check_seconds("leak_grace_s", leak_grace_s), dry_run=dry_run)

    async def listen(
        self, pool: str, *, owner: str, node: str = "", host: str | Sequence[str] = "127.0.0.1", service: str = "",
        kind: Kind | Sequence[Kind] = "tcp", attempts: int = 16, block_s: float = BLOCK_S,
        wait_s: float | None = 0.0, holder: Holder | None = None,
    ) -> BoundLease:  # fmt: skip
        """Allocate a port and bind it on this machine: a lease with its sockets, which listen.

        `host`: one address or several; `kind`: `"tcp"`, `"udp"`, or both (HTTP/3): all on the same number. A port that others
        sit on goes to BLOCKED for `block_s` seconds at most, with the errno and, where the system tells, the pid and command of
        who it is; then the next one is tried, up to `attempts` of them. TIME_WAIT of a former replica is no obstacle. `wait_s`: as
        for `allocate`, over all attempts. `holder`: one of this process, opened for the port just before it is bound.

        Raises `BindFailed` when all of them are in use; or, with the lease given back and nothing blocked, for an error that is
        no port's fault: a missing right, an address of another machine. An owner that held the port before this call keeps it,
        whatever happens. Also what `allocate` raises, and `OwnerConflict` while another call listens for the same owner.
        Cancelled, it leaks neither lease nor socket.
        """
        command = commands.Allocate(pool, owner=owner, node=node, service=service)
        wanted = Wanted.checked(command, host=host, kind=kind, attempts=attempts, block_s=block_s, wait_s=wait_s, holder=holder)
        return await self._listening.listen(wanted)
