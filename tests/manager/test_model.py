"""The real manager on a real directory against a dict, with a crash and a reopening between any two steps.

The model is written from the contract and knows nothing of ledgers or journals. After every step the manager's views are
compared with it, and its digest with the digest of what the directory replays to. A crash copies the directory as it is,
while the old manager still has it open, and goes on in the copy.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant

from portfsm import read_journal, replay
from tests.manager.model import OWNERS
from tests.manager.model_looks import Looks


class ManagerModel(Looks):
    """What must hold after every step."""

    @invariant()
    def views_agree(self):
        if not hasattr(self, "manager"):
            return
        for (node, number), port in self.model.items():
            if self.gone(node, number):
                continue
            view = self.manager.port("p", number, node=node)
            assert view.state.value == port.state, (node, number, view, port)
            if port.state == "ALLOCATED":
                assert (view.owner, view.service, view.token) == (port.owner, port.service, port.lease.token)
                assert self.manager.find(port.owner)
        for owner in OWNERS:
            held = {(lease.node, lease.port) for lease in self.manager.find(owner)}
            assert held == {place for place, port in self.model.items() if port.state == "ALLOCATED" and port.owner == owner}

    @invariant()
    def live_is_replayed(self):
        if hasattr(self, "manager"):
            assert self.manager.digest() == replay(read_journal(self.home / str(self.turn))).digest()


class TrioModel(ManagerModel):
    backend = "trio"


limits = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TestManagerOnAsyncio = ManagerModel.TestCase
TestManagerOnAsyncio.settings = limits
TestManagerOnTrio = TrioModel.TestCase
TestManagerOnTrio.settings = limits
