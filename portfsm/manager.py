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
from portfsm._log import warn
from portfsm._pressure import patience_s
from portfsm._views import Views
from portfsm._waiters import Waiter
from portfsm._warden import Warden, check_witnesses
from portfsm.clocks import SystemClock
from portfsm.errors import InvalidValue, PoolExhausted, PortfsmError, PortUnavailable, QuotaExceeded
from portfsm.journals import open_journal
from portfsm.protocols import Clock
from portfsm.specs import check_overlaps, check_seconds, check_specs, check_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from anyio.abc import TaskGroup

    from portfsm.events import Event
    from portfsm.evidence import Witness
    from portfsm.protocols import Journal
    from portfsm.specs import PoolSpec
    from portfsm.values import Lease, PoolStatistics, PortView

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
    holder: str | None = None,
    close_s: float = 30.0,
) -> AsyncIterator[PortManager]:
    """Open a log for writing, replay it, and manage its ports until the block is left.

    `journal`: a directory (made if missing), `"memory:"`, or a `Journal`. `pools`: those to put in force; pools that
    the log knows and this list does not stay as they were. `witnesses`: each joins (see `PortManager.join`). `address_of`: what
    proxies call a node; by default its own name, and 127.0.0.1 for the node "". `after_reboot`: whether every hold starts over in full
    after a
    restart of the machine, or goes on with what the wall clock leaves of it. `holder`: tells people who has the
    log open; host and process by default. `close_s`: how long leaving waits for a disk that hangs.

    Raises `JournalLocked` while another writer has it, `JournalCorrupt` at damage (nothing is changed then),
    `JournalUnreadable`, `JournalTooNew`, `InvalidValue` for pools that overlap. What the block raises comes out as it
    is; a fault of the journal while leaving comes out only if the block raised nothing.
    """
    if after_reboot not in ("restart", "remaining"):
        raise InvalidValue(f'after_reboot is "restart" or "remaining", not {after_reboot!r}', name="after_reboot", value=after_reboot)
    specs = check_specs(pools)
    check_overlaps(specs)
    present = check_witnesses(witnesses)
    if clock is not None and (isinstance(clock, type) or not isinstance(clock, Clock)):
        raise InvalidValue(f"clock must be a portfsm.Clock, such as SystemClock(), not {clock!r}", name="clock", value=clock)
    name = check_text("holder", holder if holder is not None else f"{socket.gethostname()} pid {os.getpid()}", required=True)
    clock = clock if clock is not None else SystemClock()
    engine = Engine(open_journal(journal, clock=clock), clock, close_s=check_seconds("close_s", close_s))
    await engine.start(specs, holder=name, after_reboot=after_reboot, seeds=[os.urandom(16).hex() for _ in specs])
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    tasks.start_soon(engine.run_timer)
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


def _patience_s(engine: Engine, command: commands.Allocate) -> float:
    """How long a call waits that asked not to: not at all, unless its pool's policy says so."""
    return patience_s(engine.ahead.pool(command.pool, command.node)) if command.port is None else 0.0


class PortManager(Views):
    """The ports of one log. Made by `open_manager`; all calls belong on the event loop it was made on."""

    # ------------------------------------------------------------------ leases

    async def allocate(
        self, pool: str, *, owner: str, node: str = "", service: str = "", port: int | None = None, wait_s: float | None = 0.0
    ) -> Lease:
        """A lease on a port of `pool` for `owner`; the one it holds already, if it does.

        Preferred: the owner's own quarantined port, then its service's, then the pool's order. `port` asks for one
        number. `wait_s`: 0 fails at once (unless the pool says `on_pressure="wait"`), a number waits at most so many seconds, None for
        ever; those who wait are served first come first served, and nobody overtakes them.

        Raises `PoolExhausted`, `QuotaExceeded`, `PortUnavailable`, `PortOutOfRange`, `OwnerConflict` (the owner holds a port for another
        service, or another number), `UnknownPool`, `InvalidValue`, `JournalFull`, `ManagerClosed`, or what stopped the journal.
        """
        command = commands.Allocate(pool, owner=owner, node=node, service=service, port=port)
        if wait_s is not None:
            check_seconds("wait_s", wait_s)
        await checkpoint_if_cancelled()
        engine = self._engine
        if engine.must_queue(command):
            lease = await self._queue(command, wait_s)
        else:
            try:
                lease = engine.grant(command)
            except (PoolExhausted, PortUnavailable, QuotaExceeded) as error:
                if isinstance(error, PoolExhausted) and wait_s == 0:
                    wait_s = _patience_s(engine, command)
                if wait_s == 0:
                    raise
                lease = await self._queue(command, wait_s)
        try:
            await engine.settle(lease.token)
        except BaseException:
            engine.dropped(lease.token)  # which ends the lease, unless another call awaits it
            raise
        engine.received(lease.token)
        return lease

    async def _queue(self, command: commands.Allocate, wait_s: float | None) -> Lease:
        engine = self._engine
        wait_s = wait_s if wait_s != 0 else _patience_s(engine, command)
        waiter = Waiter(command, None if wait_s is None else engine.clock.boot_ns() + round(wait_s * 1e9))
        engine.wait(waiter)
        if wait_s == 0 and not waiter.woken.is_set():
            engine.leave(waiter)
            raise engine.refusal(command)
        try:
            await waiter.woken.wait()
        except BaseException:
            engine.leave(waiter)
            raise
        if waiter.lease is None:
            raise waiter.error or engine.refusal(command)
        return waiter.lease

    @asynccontextmanager
    async def lease(
        self, pool: str, *, owner: str, node: str = "", service: str = "", port: int | None = None, wait_s: float | None = 0.0
    ) -> AsyncIterator[Lease]:
        """`allocate` on entry, `release` on the way out, also when cancelled.

        What the block raises comes out as it is; a release that fails comes out only if the block raised nothing.
        """
        lease = await self.allocate(pool, owner=owner, node=node, service=service, port=port, wait_s=wait_s)
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

    async def release(self, lease: Lease, *, block: str | None = None, for_s: float | None = None) -> None:
        """End `lease`; its port is held back for the pool's hold. Repeated: nothing happens.

        With `block`, the reason why nobody can use the port, it goes to BLOCKED instead, for `for_s` seconds or until
        unblocked. Raises `StaleLease` when the port has had another lease since; nothing is changed then.
        """
        engine = self._engine
        commands.check_lease(lease)
        evidence = self._warden.evidence_for(lease) if block is None else ""
        engine.submit(commands.Release(lease, block=block, for_s=for_s, evidence=evidence))
        await engine.settle()

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
        """Release everything `owner` holds, on every node or one, and return the leases that ended."""
        command = commands.ReleaseOwner(owner, node=node)
        held = self._engine.leases_of(owner, node)
        self._engine.submit(command)
        await self._engine.settle()
        return held

    async def adopt(self, pool: str, port: int, *, owner: str, node: str = "", service: str = "") -> Lease:
        """A lease for a port that a live owner proves it uses, whatever the log says of it.

        A port quarantined for somebody else, blocked, or outside the range is adopted all the same and the event's
        `reason` says so; outside the range it retires when released. Raises `OwnerConflict` when another owner
        holds the port, or this one holds another port of the pool. A call that is cancelled once it was recorded
        leaves the lease in place: it states what is so.
        """
        command = commands.Adopt(pool, port, owner=owner, node=node, service=service)
        await checkpoint_if_cancelled()
        lease = self._engine.adopt(command)
        await self._engine.settle()
        return lease

    # ------------------------------------------------------------------ proxies

    async def join(self, witness: Witness) -> None:
        """Require this proxy's evidence from now on. Call it before the proxy gets its first configuration.

        The requirement is recorded and outlives the controller: after a restart, join with a witness for the same proxy
        again. A proxy that has no witness holds every port until `leave`. Raises `InvalidValue` when another witness
        speaks for the proxy here.
        """
        check_witnesses([witness])
        await self._warden.join(witness)

    async def leave(self, proxy: str, *, reason: str) -> None:
        """Require the proxy's evidence no more: it is gone for good, as `reason` says. Nothing happens if it never joined."""
        await self._warden.leave(proxy, reason=reason)

    # ------------------------------------------------------------------ the operator's hand

    async def block(self, pool: str, port: int, *, node: str = "", reason: str, for_s: float | None = None) -> PortView:
        """Take a port out of use, for `for_s` seconds or until unblocked. Ends the lease, if there is one.

        A port blocked already keeps its first reason and end.
        """
        await self._submit(commands.Block(pool, port, node=node, reason=reason, for_s=for_s))
        return self.port(pool, port, node=node)

    async def unblock(self, pool: str, port: int, *, node: str = "", reason: str = "") -> PortView:
        """End a block: a full hold begins. Nothing happens to a FREE or QUARANTINED port."""
        await self._submit(commands.Unblock(pool, port, node=node, reason=reason))
        return self.port(pool, port, node=node)

    async def hold(self, pool: str, port: int, *, node: str = "", hold_s: float, reason: str = "") -> PortView:
        """Quarantine a FREE port, or make a quarantine end `hold_s` seconds from now or later; never earlier."""
        await self._submit(commands.Hold(pool, port, node=node, hold_s=hold_s, reason=reason))
        return self.port(pool, port, node=node)

    async def free(self, pool: str, port: int, *, node: str = "", reason: str) -> PortView:
        """End a quarantine now, on an operator's word (recorded with `reason`)."""
        await self._submit(commands.Free(pool, port, node=node, reason=reason))
        return self.port(pool, port, node=node)

    async def define(self, spec: PoolSpec) -> PoolStatistics:
        """Put a pool in force, a new one or another policy for one there is, while everything goes on; its counts over all nodes.

        Ports that are new serve those who wait, at once. Ports that left the ranges are given to nobody any more; those still held
        (`retired` in the counts) stay with their owners and leave when they are freed. A hold that runs keeps its end, another `hold_s`
        counts from the next release on; another `floor_s`, `order` or `on_silence` counts from now on. The same spec again records nothing.

        Raises `InvalidValue` when another pool has one of the ports, or still holds one that left its ranges.
        """
        command = commands.DefinePool(spec, seed=os.urandom(16).hex())
        self._engine.define(command)
        await self._engine.settle()
        return self.statistics(spec.name)

    async def sweep(self) -> tuple[Event, ...]:
        """Free every port whose hold is over, end every block whose time is up, and return the events."""
        swept: list[Event] = []
        while events := await self._submit(commands.Sweep()):
            swept += events
        return tuple(swept)

    async def _submit(self, command: commands.Command) -> tuple[Event, ...]:
        """Decide and record, then wait for the disk. A repeat waits for what it repeats."""
        # No checkpoint before the decision: a release in a `finally:` of a cancelled task must still be recorded.
        engine = self._engine
        events = engine.submit(command)
        await engine.settle()
        return events
