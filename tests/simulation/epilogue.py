"""The end of every story: faults stop, and then all that was promised for later must come true.

Whoever waits is served, every hold ends, every port comes home and can be given to a stranger, and the log, closed and opened
again, is the same.
"""

from __future__ import annotations

import random

from portfsm._replay import replay

from .audit import all_free

FAR = 100_000 * 1_000_000_000
"""Longer than every hold, block and wait."""


async def epilogue(world):
    world.say("-- the end: no more faults")
    chance = random.Random(world.plan.seed)
    world.chance = chance
    await world.one_controller(chance)
    world.audit()
    world.check()
    await _proxies_are_heard(world)
    await _everyone_is_served(world)
    await _every_port_comes_home(world)
    await _strangers_get_everything(world)
    await _closed_and_read_again(world)


async def _proxies_are_heard(world):
    """Every proxy that lives hears everything and tells the truth at once; of those that are gone, nobody asks any more."""
    world.proxies.honest = True
    for proxy in world.proxies.all:
        proxy.frozen = False
    for _ in range(60):  # longer than any witness waits
        await world.turn()
    living = {proxy.name for proxy in world.proxies.all}
    for name in sorted(set(world.record.ahead.required) - living):
        await _do(world, "leave", name, reason="the end")
    world.check()


async def _do(world, name, *args, **options):
    call = world.call(world.lead, name, *args, **options)
    await world.drain()
    return call


async def _everyone_is_served(world):
    """L2: those who wait get a port, once there is one; those whose patience ends are told."""
    await world.lift_policies(world.lead)
    for _ in range(60):
        if not world.calls:
            return
        for lease in world.lead.manager.ports():
            await _let_go(world, lease)
        world.advance_ns(FAR)
        await world.drain()
        for call in [call for call in world.calls if call.waits and call.options.get("port") is not None]:
            call.cancel()  # its number may be nobody's to give any more
        await world.drain()
    world.fail("starved", f"{world.calls[0].sentence} is never served")
    world.check()


async def _let_go(world, view):
    if view.state.value == "ALLOCATED":
        await _do(world, "release_owner", view.owner)
    elif view.state.value == "BLOCKED":
        await _do(world, "unblock", view.pool, view.port, node=view.node)
    elif (pool := world.lead.engine.ahead.pool(view.pool, view.node)).note(pool.row(view.port)).cause == "operator":
        await _do(world, "free", view.pool, view.port, node=view.node, reason="the end")  # his hold may be longer than the story


async def _every_port_comes_home(world):
    """L1: with time, every quarantine ends, and what lies outside the ranges retires."""
    manager = world.lead.manager
    for _ in range(2):  # a port that another claims is blocked when its lease ends
        for view in manager.ports():
            await _let_go(world, view)
    world.advance_ns(FAR)
    await _do(world, "sweep")
    for ns in (FAR, *[1_000_000_000] * 20):  # a hold that a restart began anew; a witness that was silent is asked again after a pause
        if not all_free(manager):
            world.advance_ns(ns)
            await world.drain()
    world.audit()
    if not all_free(manager):
        world.fail("never free", f"after all holds are over: {[(v.pool, v.port, v.state.value) for v in manager.ports()]}")
    world.check()


async def _strangers_get_everything(world):
    """Every port of every pool can be given to somebody new, and not one more."""
    for node in world.plan.nodes:
        for spec in [world.lead.engine.ahead.specs[name] for name in world.plan.pools]:
            calls = [_stranger(world, spec.name, node, number) for number in range(spec.size)]
            await world.drain()
            if any(type(call.error).__name__ == "JournalFull" for call in calls):  # a manager finds out when it is asked
                calls = [_stranger(world, spec.name, node, number) for number in range(spec.size)]
                await world.drain()
            if any(call.error for call in calls) or len({call.result.port for call in calls}) != spec.size:
                world.fail(
                    "lost ports", f"{spec.name} on {node!r} has {spec.size} ports, and gave {[str(c.error) for c in calls if c.error][:1]}"
                )
            more = _stranger(world, spec.name, node, spec.size)
            await world.drain()
            if type(more.error).__name__ != "PoolExhausted":
                world.fail("one too many", f"{spec.name} on {node!r} gave more ports than it has")
    world.check()


def _stranger(world, pool, node, number):
    return world.call(world.lead, "allocate", pool, owner=f"stranger-{number}", node=node, service=f"new-{number}", port=None, wait_s=0.0)


async def _closed_and_read_again(world):
    manager = world.lead.manager
    digest = manager.digest()
    world.probe(1)
    count = manager.seq
    world.lead.leave.set()
    await world.drain()
    found = world.disk.events()
    world.record.judge(found, "the end")
    if replay(found[:count]).digest() != digest:
        world.fail("live is not replay", "the closed log leads to another state")
    if found[-1].kind != "closed":
        world.fail("not closed", f"the log ends with {found[-1]}")
    world.check()
