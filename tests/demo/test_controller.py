"""The three rules of the example: lease first, release last, after a crash compare."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import portfsm
from portfsm import MemoryJournal, PoolSpec, PortState
from portfsm.demo.checks import read_acks
from portfsm.demo.controller import Acks, Controller
from portfsm.demo.plan import POOL, SERVICES, Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

REPLICAS = 10


class World:
    """Node and proxy in one: does as told, and writes down what it was told and how the port stood at that moment."""

    def __init__(self) -> None:
        self.manager: portfsm.PortManager | None = None
        self.strangers: set[int] = set()
        self.alive: dict[str, int] = {}
        self.told: list[tuple[str, str, PortState]] = []
        self.generations: list[int] = []
        self.table: dict[str, list[int]] = {}

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        match question:
            case {"do": "start", "owner": owner, "port": port}:
                self._note("start", owner, port)
                if port in self.strangers:
                    return {"error": "Address already in use"}
                self.alive[owner] = port
            case {"do": "stop", "owner": owner}:
                self._note("stop", owner, self.alive.pop(owner))
            case {"do": "list"}:
                return {"replicas": [{"owner": owner} for owner in self.alive]}
            case {"generation": generation, "table": table}:
                self.generations.append(generation)
                self.table = table
        return {}

    def routed(self) -> set[int]:
        return {port for ports in self.table.values() for port in ports}

    def _note(self, what: str, owner: str, port: int) -> None:
        assert self.manager
        assert port not in self.routed(), f"{what} of {owner} while the proxies are told to route to {port}"
        self.told.append((what, owner, self.manager.port(POOL, port).state))


@asynccontextmanager
async def controlling(world: World, journal: MemoryJournal, tmp_path: Path, *, hold_s: float = 5.0) -> AsyncIterator[Controller]:
    """One life of a controller."""
    plan = Plan("hold", str(tmp_path), "20000-20035", hold_s, 0.5, leash=0, node=0, proxy=0, replicas=REPLICAS)
    async with portfsm.open_manager(journal, pools=[PoolSpec(POOL, ports=plan.ports, hold_s=hold_s)]) as world.manager:
        yield Controller(plan, world.manager, world, world, Acks(plan.acks))  # type: ignore[arg-type]


async def test_every_replica_is_started_on_a_port_that_is_leased_already(tmp_path: Path) -> None:
    world = World()
    async with controlling(world, MemoryJournal(), tmp_path) as controller:
        await controller.fill()

    assert [(what, state) for what, _, state in world.told] == [("start", PortState.ALLOCATED)] * REPLICAS
    assert {service: len(ports) for service, ports in world.table.items()} == dict.fromkeys(SERVICES, REPLICAS // len(SERVICES))


async def test_a_port_is_released_only_after_its_replica_was_stopped_and_the_proxies_were_told(tmp_path: Path) -> None:
    world = World()
    async with controlling(world, MemoryJournal(), tmp_path) as controller:
        await controller.start("cart")
        (owner,) = controller.replicas
        port = world.alive[owner]
        await controller.stop(owner)

        assert world.told[-1] == ("stop", owner, PortState.ALLOCATED)  # and `_note` saw that no route was left
        assert controller.manager.port(POOL, port).state is PortState.QUARANTINED


async def test_a_port_somebody_else_sits_on_is_blocked_and_another_one_taken(tmp_path: Path) -> None:
    world = World()
    world.strangers = {20000, 20001}
    async with controlling(world, MemoryJournal(), tmp_path) as controller:
        await controller.start("cart")

        assert list(world.alive.values()) == [20002]
        blocked = controller.manager.ports(POOL, state=PortState.BLOCKED)
        assert [(view.port, view.reason) for view in blocked] == [(20000, "Address already in use"), (20001, "Address already in use")]


async def test_the_next_controller_keeps_the_living_and_holds_the_ports_of_the_dead(tmp_path: Path) -> None:
    world, journal = World(), MemoryJournal()
    async with controlling(world, journal, tmp_path) as controller:
        await controller.fill()
    dead, *living = world.alive
    port = world.alive.pop(dead)
    async with controlling(world, journal, tmp_path) as controller:
        assert await controller.recover() == (REPLICAS - 1, 1)

        assert list(controller.replicas) == living
        assert port not in world.routed()
        assert controller.manager.port(POOL, port).state is PortState.QUARANTINED


async def test_owners_of_two_lives_never_share_a_name(tmp_path: Path) -> None:
    world, journal, owners = World(), MemoryJournal(), []
    for _ in range(2):
        async with controlling(world, journal, tmp_path) as controller:
            await controller.start("cart")
            owners += list(controller.replicas)

    assert len(set(owners)) == 2


async def test_the_generation_of_the_table_never_goes_back_even_across_a_restart(tmp_path: Path) -> None:
    world, journal = World(), MemoryJournal()
    for _ in range(2):
        async with controlling(world, journal, tmp_path) as controller:
            await controller.recover()
            await controller.fill()
            await controller.stop(next(iter(controller.replicas)))

    assert world.generations == sorted(world.generations)


async def test_a_move_goes_from_the_largest_service_to_another(tmp_path: Path) -> None:
    world = World()
    async with controlling(world, MemoryJournal(), tmp_path) as controller:
        await controller.fill()
        await controller.start("users")

        assert controller.spare(besides="cart").startswith("users-")
        assert not controller.spare(besides="users").startswith("users-")


async def test_every_promise_is_noted_with_its_token(tmp_path: Path) -> None:
    world = World()
    async with controlling(world, MemoryJournal(), tmp_path) as controller:
        await controller.start("cart")
        ((owner, lease),) = controller.replicas.items()
        await controller.stop(owner)
        notes = read_acks(controller.plan.acks)

    assert [note.what for note in notes] == ["allocated", "releasing", "released"]
    assert {(note.port, note.owner, note.token) for note in notes} == {(lease.port, owner, lease.token)}
