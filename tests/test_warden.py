"""Quarantines that end by evidence: the manager, real logs, every loop, and proxies that say what the test wants."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel
import attrs
import pytest

from portfsm import Evidence, InvalidValue, OutcomeUnknown, PoolExhausted, PoolSpec, PortState, Verdict, open_manager
from portfsm.testing import GatedJournal

pytestmark = pytest.mark.anyio


class Proxy:
    """A witness whose proxy does as it is told: `routes` holds the ports it would still connect to."""

    def __init__(self, name="proxy", *, fallback_s=None, word=Verdict.HELD):
        self.proxy, self.fallback_s, self.word = name, fallback_s, word
        self.routes, self.asked, self.incarnation, self.generation = None, [], "1", 7
        self._news = anyio.Event()

    def let_go(self, *ports):
        """From now on these are clear; the witness hears of it at once."""
        self.routes = (self.routes if self.routes is not None else set(range(65536))) - set(ports)
        self.tell()

    def tell(self):
        self._news.set()
        self._news = anyio.Event()

    async def check(self, host, port, since):
        self.asked.append((host, port, since))
        held = self.routes is None or port in self.routes
        return Evidence(
            self.proxy, self.incarnation, since, self.word if held else Verdict.CLEAR, self.generation, "worker 5 still has it", 0, 0
        )

    async def changed(self):
        while True:
            await self._news.wait()
            yield


@pytest.fixture
def opened(log, clock):
    def make(*proxies, hold_s=10.0, **options):
        spec = PoolSpec("http", ports="30000-30001", hold_s=hold_s, **options)
        return open_manager(log.handle(), pools=[spec], clock=clock, witnesses=proxies)

    return make


async def until(true):
    with anyio.fail_after(10):
        while not true():
            await anyio.lowlevel.checkpoint()


async def settle():
    for _ in range(200):
        await anyio.lowlevel.checkpoint()


def state(manager, port=30000):
    return manager.port("http", port).state.value


async def released(manager, *, owner="a", service="x"):
    lease = await manager.allocate("http", owner=owner, service=service)
    await manager.release(lease)
    return lease


async def test_a_port_waits_out_its_hold_though_every_proxy_has_let_go(opened, log):
    proxy, second = Proxy(), Proxy("second")
    async with opened(proxy, second) as manager:
        lease = await released(manager)
        proxy.let_go(30000)
        await settle()
        assert state(manager) == "QUARANTINED", "one of two is not all"
        second.let_go(30000)
        await until(lambda: state(manager) == "FREE")
    freed = next(event for event in log.events() if event.kind == "freed")
    assert (freed.cause, freed.port) == ("evidence", lease.port)
    assert freed.reason == "proxy: clear at generation 7; second: clear at generation 7"
    assert ("127.0.0.1", 30000, lease.token + 1) in proxy.asked


async def test_a_waiter_sleeps_on_when_evidence_frees_its_port(opened):
    proxy = Proxy()
    async with opened(proxy) as manager, anyio.create_task_group() as tasks:
        await manager.allocate("http", owner="b")
        await released(manager, owner="a")
        got = []

        async def wait():
            got.append(await manager.allocate("http", owner="c", wait_s=None))

        tasks.start_soon(wait)
        await settle()
        assert not got
        proxy.let_go(30001)
        await until(lambda: got)


@pytest.mark.parametrize("word", [Verdict.HELD, Verdict.UNKNOWN])
async def test_a_hold_that_is_over_frees_what_a_proxy_still_has(opened, clock, word):
    proxy = Proxy(word=word)
    async with opened(proxy) as manager:
        await released(manager)
        await released(manager, owner="b", service="y")
        clock.advance(1000)
        await settle()
        assert await manager.sweep() == ()
        with pytest.raises(PoolExhausted):
            await manager.allocate("http", owner="c")
        await until(lambda: "worker 5 still has it" in manager.explain("http", 30000))
        text = manager.explain("http", 30000)
        assert f"proxy says {word.value}" in text
        assert "waits until every proxy has let go: proxy" in text
        assert "sweep() frees it" not in text
        assert (await manager.allocate("http", owner="a", service="x")).port == 30000, "its own service needs no evidence"
        proxy.let_go(30001)
        await until(lambda: state(manager, 30001) == "FREE")


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


async def test_evidence_ends_a_hold_before_its_floor(opened, clock):
    proxy = Proxy()
    async with opened(proxy, floor_s=2.0) as manager:
        await released(manager)
        proxy.let_go(30000)
        await settle()
        clock.advance(1.9)
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(0.1)
        await until(lambda: state(manager) == "FREE")


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


async def test_a_floor_is_skipped_by_draining_first(opened, clock):
    proxy = Proxy()
    async with opened(proxy, floor_s=2.0) as manager:
        lease = await manager.allocate("http", owner="a", service="x")
        await manager.withdraw(lease)
        proxy.let_go(30000)
        assert await manager.wait_clear(lease)
        await manager.release(lease)
        assert state(manager) == "QUARANTINED"
        clock.advance(2)
        await until(lambda: state(manager) == "FREE")


async def test_waiting_for_proxies_never_ends_or_ends_too_early(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager, anyio.create_task_group() as tasks:
        lease = await manager.allocate("http", owner="a", service="x")
        with pytest.raises(InvalidValue, match="withdraw"):
            await manager.wait_clear(lease)
        await manager.withdraw(lease)
        assert not await manager.wait_clear(lease, timeout_s=0)
        found = []

        async def wait():
            found.append(await manager.wait_clear(lease, timeout_s=3))

        tasks.start_soon(wait)
        await settle()
        clock.advance(2.9)
        await settle()
        assert not found
        clock.advance(0.1)
        await until(lambda: found)
        assert found == [False]


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


async def test_a_proxy_that_is_gone_for_good_holds_ports_for_ever(opened, clock):
    proxy, gone = Proxy(), Proxy("gone")
    async with opened(proxy, gone) as manager:
        await released(manager)
        proxy.let_go(30000)
        await settle()
        assert state(manager) == "QUARANTINED"
        await manager.leave("gone", reason="scaled in")
        await until(lambda: state(manager) == "FREE")
        await manager.leave("proxy", reason="scaled in")
        await manager.leave("proxy", reason="scaled in")
        await released(manager)
        await settle()
        assert state(manager) == "QUARANTINED", "an empty all is no evidence"
        clock.advance(10)
        assert [event.cause for event in await manager.sweep()] == ["elapsed"]


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


async def test_evidence_ends_what_an_operator_asked_for(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        proxy.let_go(30000)
        await manager.hold("http", 30000, hold_s=50)
        await settle()
        clock.advance(49)
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(1)
        await until(lambda: state(manager) == "FREE")


async def test_a_silent_proxy_with_a_bound_of_its_own_holds_ports_for_ever(opened, clock):
    proxy = Proxy(word=Verdict.UNKNOWN, fallback_s=30)
    async with opened(proxy) as manager:
        await released(manager)
        await settle()
        clock.advance(29)
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(1)
        await until(lambda: state(manager) == "FREE")


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


async def test_proxies_are_asked_though_nothing_waits(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await manager.allocate("http", owner="a")
        for _ in range(5):
            clock.advance(1)
            await settle()
        assert proxy.asked == []


async def test_every_port_takes_a_question_of_its_own(log, clock):
    class Many(Proxy):
        rounds = 0

        async def check_many(self, places):
            self.rounds += 1
            return [await self.check(*place) for place in places]

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
                    await anyio.wait_all_tasks_blocked()
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
    class Many(Proxy):
        rounds = 0

        async def check_many(self, places):
            self.rounds += 1
            return [await self.check(*place) for place in places]

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


async def test_a_cancelled_lease_pays_off_an_earlier_one_that_no_proxy_let_go_of(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager)
        clock.advance(100)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await manager.allocate("http", owner="a", service="x")
        await settle()
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


async def test_nobody_is_told_of_a_manager_that_was_left(opened):
    proxy = Proxy()
    context = opened(proxy)
    manager = await context.__aenter__()
    lease = await manager.allocate("http", owner="a")
    await manager.release(lease)
    await context.__aexit__(None, None, None)
    with anyio.fail_after(5), pytest.raises(Exception, match="left"):
        await manager.wait_clear(lease)


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


async def test_a_restart_of_the_machine_ends_what_an_operator_asked_for(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await manager.hold("http", 30000, hold_s=50)
    clock.reboot()
    proxy.let_go(30000)
    async with opened(proxy) as manager:
        await settle()
        clock.advance(49)
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(1)
        await until(lambda: state(manager) == "FREE")


async def test_a_floor_is_cut_short_by_a_wall_clock_that_was_set_over_a_restart(opened, clock):
    proxy = Proxy()
    async with opened(proxy, floor_s=5.0) as manager:
        await released(manager)
    clock.step_wall(3600)
    clock.reboot()
    proxy.let_go(30000)
    async with opened(proxy, floor_s=5.0) as manager:
        await settle()
        clock.advance(4.9)
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(0.1)
        await until(lambda: state(manager) == "FREE")


async def test_evidence_ends_a_hold_that_an_operator_found_long_enough(opened, clock):
    proxy = Proxy()
    async with opened(proxy) as manager:
        await released(manager)
        await manager.hold("http", 30000, hold_s=5)
        seq = manager.seq
        await manager.hold("http", 30000, hold_s=5)
        assert manager.seq == seq
        proxy.let_go(30000)
        await settle()
        clock.advance(4.9)
        await settle()
        assert state(manager) == "QUARANTINED"
        clock.advance(5.1)
        await until(lambda: state(manager) == "FREE")


async def test_the_end_of_a_block_in_a_pool_without_holds_is_the_end_of_what_it_keeps(opened, clock):
    async with opened(Proxy(), hold_s=0.0) as manager:
        await manager.block("http", 30000, reason="tests", for_s=1)
        await manager.block("http", 30001, reason="tests", for_s=2)
        clock.advance(1)
        await manager.sweep()
        assert await manager.sweep() == ()
        assert state(manager) == "QUARANTINED"


async def test_a_caller_waits_for_proxies_though_the_hold_is_over_and_none_is_required(opened, clock):
    async with opened() as manager, anyio.create_task_group() as tasks:
        lease = await released(manager)
        found = []

        async def wait():
            found.append(await manager.wait_clear(lease))

        tasks.start_soon(wait)
        await settle()
        clock.advance(9.9)
        await settle()
        assert not found
        clock.advance(0.1)
        await until(lambda: found)
        assert found == [True]
        assert not await manager.wait_clear(await released(manager, owner="b"), timeout_s=0)


async def test_a_caller_hears_that_a_hold_is_over_before_its_beginning_is_durable(clock):
    """Proxies are told of what is durable: a hold whose release still hangs on the disk may be news to all of them."""
    journal = GatedJournal()
    spec = PoolSpec("http", ports="30000-30001", hold_s=10)
    async with open_manager(journal, pools=[spec], clock=clock) as manager, anyio.create_task_group() as tasks:
        lease, found = await manager.allocate("http", owner="a"), []

        async def wait():
            found.append(await manager.wait_clear(lease))

        journal.hold()
        tasks.start_soon(manager.release, lease)
        await settle()
        clock.advance(11)
        tasks.start_soon(wait)
        await settle()
        assert not found
        journal.let_go()
        await until(lambda: found)
        assert found == [True]


async def test_a_caller_waits_for_proxies_though_the_journal_has_failed(clock):
    journal = GatedJournal()
    spec = PoolSpec("http", ports="30000-30001", hold_s=10)
    with pytest.raises(OutcomeUnknown):
        async with open_manager(journal, pools=[spec], clock=clock, witnesses=[Proxy()]) as manager:
            lease, failed = await released(manager), []

            async def wait():
                with pytest.raises(OutcomeUnknown):
                    await manager.wait_clear(lease)
                failed.append(True)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await settle()
                journal.fail(OutcomeUnknown("sync failed", path="x", errno=5))
                with pytest.raises(OutcomeUnknown):
                    await manager.allocate("http", owner="b")
                await until(lambda: failed)
            await manager.allocate("http", owner="b")


async def test_a_waiter_sleeps_on_when_the_last_proxy_leaves(opened, clock):
    async with opened(Proxy()) as manager, anyio.create_task_group() as tasks:
        await released(manager, owner="a")
        await released(manager, owner="b")
        got = []

        async def wait(owner):
            got.append(await manager.allocate("http", owner=owner, wait_s=None))

        clock.advance(9)
        await manager.hold("http", 30001, hold_s=5)
        clock.advance(1)
        tasks.start_soon(wait, "c")
        tasks.start_soon(wait, "d")
        await settle()
        assert not got
        await manager.leave("proxy", reason="scaled in")
        await until(lambda: len(got) == 1)
        clock.advance(4)
        await until(lambda: len(got) == 2)
