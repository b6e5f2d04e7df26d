"""What can be asked of an open manager, on every kind of journal and every event loop."""

import pytest

from portfsm import PortOutOfRange, PortState, UnknownPool

pytestmark = pytest.mark.anyio


async def test_views_free_a_due_port(opened, clock):
    """Time alone changes nothing: a due port shows an `until` in the past until somebody notices."""
    async with opened() as manager:
        await manager.release(await manager.allocate("http", owner="a"))
        clock.advance(100)
        seq = manager.seq
        view = manager.port("http", 30000)
        assert view.state is PortState.QUARANTINED
        assert view.until < clock.wall_ns()
        manager.statistics()
        manager.explain("http", 30000)
        assert list(manager.ports()) == [view]
        assert manager.seq == seq


async def test_views_disagree(opened, log):
    async with opened() as manager:
        assert manager.ports() == ()
        assert manager.statistics("http").free == 4
        a = await manager.allocate("http", owner="a", node="n2")
        await manager.block("grpc", 40001, node="n1", reason="x")
        await manager.release(await manager.allocate("http", owner="c", node="n1"))
        assert [(view.node, view.pool, view.port) for view in manager.ports()] == [
            ("n1", "grpc", 40001),
            ("n1", "http", 30000),
            ("n2", "http", 30000),
        ]
        assert [view.port for view in manager.ports("http", node="n2")] == [a.port]
        assert [view.pool for view in manager.ports(state=PortState.BLOCKED)] == ["grpc"]
        assert manager.port("http", 30003, node="never") == manager.port("http", 30003, node="never")
        total = manager.statistics()
        assert (total.size, total.free, total.allocated, total.quarantined, total.blocked) == (12, 9, 1, 1, 1)
        assert set(manager.pools) == {"http", "grpc"}
        log.check(manager)


async def test_an_unknown_pool_or_port_is_answered(opened):
    async with opened() as manager:
        with pytest.raises(UnknownPool) as caught:
            manager.port("nope", 1)
        assert caught.value.known == ("grpc", "http")
        for call in (manager.ports, manager.statistics):
            with pytest.raises(UnknownPool):
                call("nope")
        with pytest.raises(UnknownPool):
            await manager.allocate("nope", owner="x")
        for port in (29999, 30004):
            with pytest.raises(PortOutOfRange):
                manager.port("http", port)
            with pytest.raises(PortOutOfRange):
                await manager.allocate("http", owner="x", port=port)


async def test_head_or_epoch_stands_still(opened, log):
    heads = []
    for epoch in (1, 2, 3):
        async with opened() as manager:
            assert manager.epoch == epoch
            heads.append(manager.head)
            await manager.allocate("http", owner=f"r{epoch}")
            heads.append(manager.head)
            assert heads[-1].seq == manager.seq == manager.durable_seq
    assert len({head.log_id for head in heads}) == 1
    assert len({(head.seq, head.digest) for head in heads}) == 6
    assert manager.head.seq == log.events()[-1].seq
