"""Calls of a manager with two pools, some of them groups."""

from portfsm import PoolSpec, Request
from tests import tasks
from tests.tasks import stepped

HTTP = PoolSpec("http", ports="1000-1003", hold_s=0)
GRPC = PoolSpec("grpc", ports="2000-2003", hold_s=10.0)
BOTH = [Request("http", "r1", service="s"), Request("grpc", "r1", service="s", count=2)]


async def release_and(manager, lease, then):
    """Release, and do something before anybody that this wakes gets a turn."""
    await stepped(manager.release(lease), 1, then)


async def release_after(manager, lease, first):
    """Do something and release in one step: whoever hears of the first has by then been given what the second frees."""
    first()
    await manager.release(lease)


class Callers(tasks.Callers):
    """Groups, and single calls among them."""

    async def start(self, name, *requests, wait_s=None):
        await self.begin(name, self.manager.allocate_group(requests, wait_s=wait_s))

    async def single(self, name, pool, *, wait_s=None, **options):
        """What it gets is a group of one."""
        await self.begin(name, self._alone(pool, owner=name, wait_s=wait_s, **options))

    async def _alone(self, pool, **options):
        return (await self.manager.allocate(pool, **options),)

    def ports(self, name):
        return [lease.port for lease in self.got[name]]
