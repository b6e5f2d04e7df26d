"""Quarantines that end by evidence: the manager, real logs, every loop, and proxies that say what the test wants."""

from __future__ import annotations

import attrs
import pytest

from portfsm import InvalidValue, PoolSpec, PortState, Verdict, open_manager
from tests.warden.scene import Proxy, released, settle, state, until

pytestmark = pytest.mark.anyio


async def test_silence_keeps_a_port_for_ever_though_the_pool_says_free(opened, clock, log):
    proxy = Proxy()
    async with opened(proxy, on_silence="free") as manager:
        await released(manager)
        clock.advance(10)
        (freed,) = await manager.sweep()
        assert (freed.cause, freed.reason) == ("elapsed", "without evidence of proxy")


async def test_the_end_of_a_second_lease_is_proven_by_an_answer_to_the_first(opened):
    proxy = Proxy()
    async with opened(proxy) as manager:
        first = await released(manager)
        await until(lambda: proxy.asked)
        again = await manager.allocate("http", owner="a", service="x")
        proxy.let_go(30000)
        await settle()
        assert (again.port, state(manager)) == (first.port, "ALLOCATED")
        proxy.routes.add(30000)
        await manager.release(again)
        await settle()
        assert state(manager) == "QUARANTINED"


async def test_a_drained_port_waits_after_its_replica_has_stopped(opened, log):
    proxy = Proxy()
    async with opened(proxy) as manager:
        lease = await manager.allocate("http", owner="a", service="x")
        await manager.withdraw(lease)
        proxy.let_go(30000)
        assert await manager.wait_clear(lease)
        assert state(manager) == "ALLOCATED"
        await manager.release(lease)
        assert state(manager) == "FREE"
    assert log.kinds()[-4:] == ["allocated", "withdrawn", "released", "freed"]
    released, freed = [event for event in log.events() if event.kind in ("released", "freed")]
    assert (released.ts, freed.cause) == (freed.ts, "evidence")


async def test_a_controller_that_died_forgets_whom_it_had_to_ask(opened, clock, log):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager)
    async with opened() as manager:
        clock.advance(1000)
        await settle()
        assert await manager.sweep() == ()
        assert "proxy was not heard" in manager.explain("http", 30000)
        proxy.let_go(30000)
        await manager.join(proxy)
        await until(lambda: state(manager) == "FREE")
    assert log.kinds().count("proxy_joined") == 1


async def test_a_proxy_that_was_restarted_is_believed_what_it_said_before(opened, clock):
    """After a replacement the old incarnation was listened to (ray-project/ray#66039)."""
    proxy, second = Proxy(), Proxy("second")
    async with opened(proxy, second) as manager:
        await released(manager)
        await released(manager, owner="b", service="y")
        proxy.let_go(30000)
        await until(lambda: not manager.explain("http", 30000).count("proxy says"))
        proxy.incarnation, proxy.routes = "2", {30000, 30001}
        proxy.tell()
        await until(lambda: "proxy " in manager.explain("http", 30000))
        await settle()
        clock.advance(1)
        await until(lambda: "proxy says HELD" in manager.explain("http", 30000))
        second.let_go(30000, 30001)
        await settle()
        assert state(manager) == "QUARANTINED"


async def test_a_proxy_that_went_back_to_an_older_configuration_is_believed(opened, clock):
    proxy, second = Proxy(), Proxy("second")
    async with opened(proxy, second) as manager:
        await released(manager)
        await released(manager, owner="b", service="y")
        proxy.let_go(30000)
        await until(lambda: "proxy says" not in manager.explain("http", 30000))
        proxy.generation, proxy.routes = 3, {30000, 30001}
        proxy.tell()
        await until(lambda: "proxy " in manager.explain("http", 30000))
        await settle()
        clock.advance(1)
        second.let_go(30000, 30001)
        await until(lambda: "proxy says HELD" in manager.explain("http", 30000))
        assert state(manager) == "QUARANTINED"


async def test_a_held_port_is_freed_by_a_bound_meant_for_silence(opened, clock):
    proxy = Proxy(word=Verdict.HELD, fallback_s=30)
    async with opened(proxy) as manager:
        await released(manager)
        await settle()
        clock.advance(1000)
        await settle()
        assert state(manager) == "QUARANTINED"


async def test_a_witness_that_raises_takes_the_manager_down(opened):
    class Broken(Proxy):
        broken = True

        async def check(self, host, port, since):
            if self.broken:
                raise RuntimeError("no such socket")
            return await super().check(host, port, since)

        def changed(self):
            raise NotImplementedError

    proxy = Broken()
    async with opened(proxy) as manager:
        await released(manager)
        await until(lambda: "no such socket" in manager.explain("http", 30000))
        assert state(manager) == "QUARANTINED"


async def test_two_witnesses_speak_for_one_proxy(opened):
    async with opened(Proxy()) as manager:
        with pytest.raises(InvalidValue, match="another witness"):
            await manager.join(Proxy())


@pytest.mark.parametrize("junk", [None, Proxy, "proxy", attrs.make_class("Half", ["proxy"])("p")])
async def test_junk_becomes_a_witness(opened, junk):
    async with opened() as manager:
        with pytest.raises(InvalidValue, match="witness"):
            await manager.join(junk)
        assert manager.seq == 2


async def test_a_node_is_called_by_a_name_that_proxies_do_not_know(log, clock):
    proxy = Proxy()
    spec = PoolSpec("http", ports="30000-30001", hold_s=10)
    async with open_manager(log.handle(), pools=[spec], clock=clock, witnesses=[proxy], address_of={"n1": "10.0.0.1"}) as manager:
        for node in ("", "n1", "n2"):
            await manager.release(await manager.allocate("http", owner="a", node=node))
        await until(lambda: {host for host, _, _ in proxy.asked} == {"127.0.0.1", "10.0.0.1", "n2"})
        assert manager.port("http", 30000, node="n2").state is PortState.QUARANTINED


async def test_a_service_inherits_what_proxies_still_route_for_another(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager, owner="a", service="x")
        await released(manager, owner="a", service="y")
        clock.advance(100)
        await settle()
        assert (await manager.allocate("http", owner="b", service="y")).port == 30001
    async with opened(proxy) as manager:
        await manager.release_owner("b")
        assert (await manager.allocate("http", owner="c", service="y")).port == 30001


async def test_an_adopter_leaves_its_service_what_proxies_still_route_for_another(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager, owner="a", service="x")
        clock.advance(100)
        await manager.release(await manager.adopt("http", 30000, owner="b", service="y"))
        clock.advance(100)
        await settle()
        assert (await manager.allocate("http", owner="c", service="y")).port == 30001
