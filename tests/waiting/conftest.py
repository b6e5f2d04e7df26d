"""What the tests of waiting share: managers, and callers in line."""

import anyio
import pytest

from portfsm import PoolSpec, open_manager
from tests import tasks

ONE = PoolSpec("one", ports="1000", hold_s=10.0)
FREE_AT_ONCE = PoolSpec("fast", ports="2000-2001", hold_s=0)


@pytest.fixture
def opened(memory_log, clock):
    def make(*pools, journal=None):
        return open_manager(journal or memory_log.handle(), pools=pools or [ONE, FREE_AT_ONCE], clock=clock)

    return make


class Callers(tasks.Callers):
    """Calls of `allocate`."""

    async def start(self, name, pool="one", *, wait_s=None, **request):
        await self.begin(name, self.manager.allocate(pool, wait_s=wait_s, **{"owner": name, **request}))


@pytest.fixture
def callers(opened):
    """A manager, a task group and calls; whoever still waits at the end is cancelled."""

    class Context:
        def __init__(self, *pools, journal=None):
            self.context = opened(*pools, journal=journal)

        async def __aenter__(self):
            self.tasks = anyio.create_task_group()
            self.manager = await self.context.__aenter__()
            await self.tasks.__aenter__()
            return Callers(self.manager, self.tasks)

        async def __aexit__(self, *error):
            self.tasks.cancel_scope.cancel()
            try:
                await self.tasks.__aexit__(*error)
            finally:
                await self.context.__aexit__(*error)

    return Context
