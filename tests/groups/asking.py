"""Groups as the tests of the pure core ask for them."""

from __future__ import annotations

from portfsm.commands import AllocateGroup
from portfsm.groups import Request


def group(*requests: Request) -> AllocateGroup:
    return AllocateGroup(requests)


def block(count, owner="a", *, pool="p", **options) -> Request:
    return Request(pool, owner, count=count, contiguous=True, **options)


def given(world, *requests) -> list[int]:
    """The numbers that these requests get, in the order of the events; a replay knows them too."""
    events = world.decide(group(*requests))
    world.do(group(*requests))
    assert world.replayed().digest() == world.ledger.digest()
    return [event.port for event in events if event.kind == "allocated"]
