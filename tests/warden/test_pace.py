"""When proxies are asked and told: at once, together, in growing pauses, and not at all when nothing waits."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel
import pytest

from portfsm import PoolSpec, Verdict, open_manager
from tests.warden.scene import Many, Proxy, released, settle, state, until

pytestmark = pytest.mark.anyio


async def test_proxies_are_asked_though_nothing_waits(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await manager.allocate("http", owner="a")
        for _ in range(5):
            clock.advance(1)
            await settle()
        assert proxy.asked == []


async def test_every_port_takes_a_question_of_its_own(log, clock):
    proxy = Many()
    spec = PoolSpec("http", ports="30000-30999", hold_s=10)
    async with open_manager(log.handle(), pools=[spec], clock=clock, witnesses=[proxy]) as manager:
        leases = [await manager.allocate("http", owner=f"r{n}", service=f"s{n}") for n in range(100)]
        await settle()
        async with anyio.create_task_group() as tasks:
            for lease in leases:
                tasks.start_soon(manager.release, lease)
        await until(lambda: len({port for _, port, _ in proxy.asked}) == 100)
        assert proxy.rounds < 20
        proxy.let_go(*range(30000, 30100))
        await until(lambda: manager.statistics().free == 1000)


async def test_a_port_is_left_in_the_proxy_though_the_witness_could_take_it_out(opened):
    class Able(Proxy):
        async def withdraw(self, host, port, since):
            withdrawn.append((host, port, since))
            self.let_go(port)

    withdrawn = []
    async with opened(Able()) as manager:
        lease = await released(manager)
        await until(lambda: state(manager) == "FREE")
        assert withdrawn == [("127.0.0.1", 30000, lease.token + 1)]


async def test_who_waits_for_a_port_waits_for_the_next_round(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        lease = await manager.allocate("http", owner="a", service="x")
        await manager.withdraw(lease)
        for _ in range(10):
            clock.advance(0.5)
            await settle()
        proxy.routes = set()  # and nobody is told; the clock stands still
        await settle()
        assert "proxy says HELD" in manager.explain("http", 30000)
        with anyio.fail_after(5):
            assert await manager.wait_clear(lease)


async def at_the_longest_pause(clock):
    for _ in range(10):
        clock.advance(0.5)
        await settle()


async def test_who_waits_in_allocate_waits_for_a_pause_that_began_before(opened, clock):
    """Both ports are held, and nobody is told when they are clear: the first round comes 5 ms on, later ones each 50 ms."""
    proxy = Proxy()
    async with opened(proxy, hold_s=1000) as manager, anyio.create_task_group() as tasks:
        first, second = [await manager.allocate("http", owner=name, service="x") for name in "ab"]
        for lease in (first, second):
            await manager.release(lease)
        await until(lambda: "proxy says" in manager.explain("http", 30001))
        await at_the_longest_pause(clock)
        proxy.routes = {second.port}
        tasks.start_soon(partial(manager.allocate, "http", owner="c", service="y", wait_s=None))
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(0.006)
        await until(lambda: state(manager) == "ALLOCATED")
        tasks.start_soon(partial(manager.allocate, "http", owner="d", service="y", wait_s=None))
        await at_the_longest_pause(clock)
        proxy.routes = set()
        clock.advance(0.06)
        await until(lambda: state(manager, 30001) == "ALLOCATED")


async def test_callers_that_give_up_and_try_again_keep_a_proxy_busy(opened, clock):
    proxy = Proxy()
    async with opened(proxy, hold_s=1000) as manager:
        for lease in [await manager.allocate("http", owner=name, service="x") for name in "ab"]:
            await manager.release(lease)
        await until(lambda: "proxy says" in manager.explain("http", 30001))
        await at_the_longest_pause(clock)
        before = len(proxy.asked)
        for number in range(25):  # in 25 ms
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(manager.allocate, "http", owner=f"{number}", service="y", wait_s=None))
                    await settle()
                    scope.cancel()
            clock.advance(0.001)
            await settle()
        assert len(proxy.asked) - before <= 2 * 6


async def test_who_waits_elsewhere_has_a_proxy_asked_more_often(log, clock):
    """Neither another pool's waiter nor one that has gone makes pauses short."""
    proxy = Proxy()
    specs = [PoolSpec("http", ports="30000", hold_s=1000), PoolSpec("full", ports="30100", hold_s=1000)]
    async with open_manager(log.handle(), pools=specs, clock=clock, witnesses=[proxy]) as manager:
        lease = await released(manager)
        await manager.allocate("full", owner="z")
        await until(lambda: "proxy says" in manager.explain("http", 30000))
        with anyio.move_on_after(0.01):
            await manager.wait_clear(lease, timeout_s=None)
        await at_the_longest_pause(clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(manager.allocate, "full", owner="y", wait_s=None))
            await settle()
            before = len(proxy.asked)
            for _ in range(20):
                clock.advance(0.1)
                await settle()
            assert len(proxy.asked) - before <= 5
            tasks.cancel_scope.cancel()


async def test_a_thousand_ports_are_asked_about_as_often_as_one(log, clock):
    proxy = Many()
    spec = PoolSpec("http", ports="30000-34999", hold_s=1000)
    async with open_manager(log.handle(), pools=[spec], clock=clock, witnesses=[proxy]) as manager:
        async with anyio.create_task_group() as tasks:
            for port in range(30000, 35000):
                tasks.start_soon(partial(manager.hold, "http", port, hold_s=1000))
        await until(lambda: "proxy says" in manager.explain("http", 34999))
        for _ in range(20):  # the pause is the longest there is
            clock.advance(1)
            await settle()
        before = proxy.rounds
        for _ in range(10):
            clock.advance(0.5)
            await settle()
        assert proxy.rounds - before <= 5


async def test_a_silent_proxy_is_told_once_and_never_again(opened, clock):
    class Deaf(Proxy):
        async def withdraw(self, host, port, since):
            if self.word is Verdict.HELD:
                self.let_go(port)

    proxy = Deaf(word=Verdict.UNKNOWN)
    async with opened(proxy) as manager:
        await released(manager)
        await until(lambda: "proxy says UNKNOWN" in manager.explain("http", 30000))
        proxy.word = Verdict.HELD
        for _ in range(3):
            clock.advance(1)
            await settle()
        await until(lambda: state(manager) == "FREE")


async def test_a_port_that_a_reload_put_back_is_never_taken_out_again(opened, clock):
    """No silence tells of it: it is simply in service again, in a proxy that heard the first time."""

    class Able(Proxy):
        deaf, told = True, 0

        async def withdraw(self, host, port, since):
            self.told += 1
            if not self.deaf:
                self.let_go(port)

    proxy = Able()
    async with opened(proxy, hold_s=1000) as manager:
        await released(manager)
        await until(lambda: "proxy says HELD" in manager.explain("http", 30000))
        for _ in range(5):
            clock.advance(0.15)
            await settle()
        assert proxy.told == 1
        proxy.deaf = False
        clock.advance(1)
        await until(lambda: state(manager) == "FREE")


async def test_ports_released_together_are_taken_out_one_by_one(opened):
    class Able(Proxy):
        async def withdraw(self, host, port, since):
            raise AssertionError("one by one")

        async def withdraw_many(self, places):
            if places:
                withdrawn.append(sorted(port for _, port, _ in places))
            self.let_go(*(port for _, port, _ in places))

    withdrawn = []
    async with opened(Able()) as manager:
        leases = [await manager.allocate("http", owner=f"r{n}", service=f"s{n}") for n in range(2)]
        async with anyio.create_task_group() as tasks:
            for lease in leases:
                tasks.start_soon(manager.release, lease)
        await until(lambda: manager.statistics().free == 2)
        assert sorted(port for ports in withdrawn for port in ports) == [30000, 30001]
