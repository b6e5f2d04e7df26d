"""Ray Serve's port manager on a log: what its own forgets or mixes up (docs/ray.md), call by call, and once on a real cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from portfsm import Fenced, InvalidValue, PoolExhausted, PoolSpec, read_journal, replay
from portfsm.contrib import ray_serve
from portfsm.contrib._ray_ports import Ports
from portfsm.journals import MemoryJournal
from tests.strangers import free_range

NODE = "node-1"
SPECS = [PoolSpec("http", ports="8000-8004", hold_s=60), PoolSpec("grpc", ports="9000-9004", hold_s=60)]


@pytest.fixture
def opened(tmp_path):
    """Opens the log, again and again; an earlier opening lets go of it."""
    made = []

    def open_ports(**options):
        if made:
            made[-1].close()
        made.append(Ports(tmp_path / "log", SPECS, **options))
        return made[-1]

    yield open_ports
    made[-1].close()


@pytest.fixture
def ports(opened):
    return opened()


def state(tmp_path, port, pool="http"):
    return replay(read_journal(tmp_path / "log")).port(pool, port, node=NODE)


def kinds(tmp_path):
    return [event.kind.value for event in read_journal(tmp_path / "log") if event.port]


def test_a_replica_has_two_ports_or_one_of_another(ports):
    assert [ports.allocate("http", NODE, owner) for owner in ("r1", "r2", "r1")] == [8000, 8001, 8000]
    assert [ports.allocate("grpc", NODE, "r1"), ports.allocate("http", "node-2", "r3")] == [9000, 8000]
    assert [ports.find("http", NODE, owner) for owner in ("r1", "r2", "r3")] == [8000, 8001, None]


class Sick(MemoryJournal):
    """A journal with a bug of its own, in what the manager does by itself."""

    lease_s = 0.2
    append_renews = True

    def __init__(self):
        super().__init__()
        self.asked = threading.Event()

    def renew(self):
        if not self.asked.is_set():
            self.asked.set()
            raise ZeroDivisionError
        self.append(())


def test_a_manager_that_died_of_a_bug_is_never_opened_again():
    """Ray's controller goes on, and asks at every tick."""
    journal = Sick()
    ports = Ports(journal, SPECS)
    assert ports.allocate("http", NODE, "r1") == 8000
    assert journal.asked.wait(30)
    for thread in threading.enumerate():
        if thread.name == "portfsm-ray":
            thread.join(30)
    assert [ports.allocate("http", NODE, owner) for owner in ("r1", "r2")] == [8000, 8001]
    ports.close()


def test_a_controller_that_comes_back_forgets_holds_blocks_or_live_ports(opened, tmp_path):
    """The first thing that it is asked for is another port, before any replica was found."""
    ports = opened()
    for owner in ("stopped", "blocked", "lives"):
        ports.allocate("http", NODE, owner)
    ports.prune({NODE: {"stopped", "blocked", "lives"}})
    ports.release("http", NODE, "blocked", 8001, block=True)
    ports.prune({NODE: {"lives"}})
    ports = opened()
    ports.prune({})
    assert [ports.allocate("http", NODE, "new"), ports.find("http", NODE, "lives")] == [8003, 8002]
    assert [state(tmp_path, port).state.value for port in (8000, 8001, 8002)] == ["QUARANTINED", "BLOCKED", "ALLOCATED"]


def test_a_replica_that_starts_loses_its_port_to_a_look_at_those_that_live(ports):
    """It asks for one before the controller knows its node."""
    ports.allocate("http", NODE, "starts")
    ports.prune({NODE: set()})
    assert ports.find("http", NODE, "starts") == 8000


def test_a_dead_replica_keeps_its_port_where_nothing_else_happens(opened, tmp_path):
    """It died before it was seen: found by comparing, three times."""
    ports = opened(leak_grace_s=0)
    for owner in ("lives", "too", "never seen"):
        ports.allocate("http", NODE, owner)
    looks = 0
    while ports.unsettled:
        ports.prune({NODE: {"lives", "too"}})
        looks += 1
        assert looks < 9
    assert looks >= 3
    assert (ports.find("http", NODE, "never seen"), state(tmp_path, 8002).state.value) == (None, "QUARANTINED")
    assert ports.find("http", NODE, "lives") == 8000


def test_a_call_that_is_repeated_after_a_lost_reply_fails_or_forgets_the_block(ports, tmp_path):
    ports.allocate("http", NODE, "r1")
    for block in (False, True, True):
        ports.release("http", NODE, "r1", 8000, block=block)
    assert state(tmp_path, 8000).state.value == "BLOCKED"
    ports.release("http", NODE, "unknown", 8001, block=True)
    assert kinds(tmp_path) == ["allocated", "released", "blocked"]


def test_the_port_of_one_is_released_for_another(ports):
    ports.allocate("http", NODE, "r1")
    with pytest.raises(InvalidValue, match="holds port 8000"):
        ports.release("http", NODE, "r1", 8001, block=False)
    ports.release("http", NODE, "r2", 8000, block=True)
    assert ports.find("http", NODE, "r1") == 8000


def test_what_replicas_say_of_themselves_doubles_a_port(ports, told):
    """Two claim one port, one claims another than it has: the first word counts, and it is told."""
    ports.recover("http", NODE, "r1", 8003)
    ports.recover("http", NODE, "r1", 8003)
    ports.recover("http", NODE, "r2", 8003)
    ports.recover("http", NODE, "r1", 8004)
    assert [ports.find("http", NODE, owner) for owner in ("r1", "r2")] == [8003, None]
    assert [line["event"] for line in told if line["event"] == "portfsm.ray_conflict"] == ["portfsm.ray_conflict"] * 2
    assert [ports.allocate("http", NODE, f"n{number}") for number in range(3)] == [8000, 8001, 8002]


def test_an_empty_pool_raises_something_else(ports):
    for number in range(5):
        ports.allocate("http", NODE, f"r{number}")
    with pytest.raises(PoolExhausted):
        ports.allocate("http", NODE, "one more")


def test_a_log_that_failed_stays_closed(ports, tmp_path):
    ports.allocate("http", NODE, "r1")
    (tmp_path / "log" / "LOCK").unlink()
    with pytest.raises(Fenced):
        ports.allocate("http", NODE, "r2")
    assert [ports.find("http", NODE, "r1"), ports.allocate("http", NODE, "r2")] == [8000, 8001]


# ---------------------------------------------------------------------- in Ray's place


class NoPortError(Exception):
    """As Ray's `NoAvailablePortError`."""

    def __init__(self, protocol, node):
        super().__init__(f"{protocol} {node}")


@pytest.fixture
def ray(monkeypatch):
    """As much of Ray as is looked at: its constants, its port manager, and a controller that has imported it."""
    names = ("ray", "ray.serve", "ray.serve._private", "ray.serve._private.constants", "ray.serve._private.node_port_manager")
    modules = {name: types.ModuleType(name) for name in (*names, "ray.serve._private.controller")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            setattr(modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
    constants = modules["ray.serve._private.constants"]
    bounds = {"HTTP": (30000, 30003), "GRPC": (40000, 40002)}
    for protocol, both in bounds.items():
        for bound, value in zip(("MIN", "MAX"), both, strict=True):
            setattr(constants, f"RAY_SERVE_DIRECT_INGRESS_{bound}_{protocol}_PORT", value)
    constants.RAY_SERVE_PORT_QUARANTINE_S = 150.0
    module = modules["ray.serve._private.node_port_manager"]
    module.NoAvailablePortError = NoPortError
    module.NodePortManager = type("NodePortManager", (), dict.fromkeys(ray_serve._CALLS))
    modules["ray.serve._private.controller"].NodePortManager = module.NodePortManager
    return types.SimpleNamespace(module=module, controller=modules["ray.serve._private.controller"])


def test_the_controller_goes_on_with_rays_own(ray, tmp_path):
    ray_serve.install(journal=tmp_path / "log")
    manager = ray.controller.NodePortManager
    assert manager is ray.module.NodePortManager
    assert not (tmp_path / "log").exists()  # other processes install it too, and open nothing
    node = manager.get_node_manager("n1")
    assert [node.allocate_port(f"r{number}", "HTTP") for number in range(3)] == [30000, 30001, 30002]
    with pytest.raises(NoPortError) as refused:
        node.allocate_port("r3", "HTTP")
    assert isinstance(refused.value.__cause__, PoolExhausted)
    manager.update_ports([("n1", "r9", None, 40001), (None, "r8", 30000, None)])
    assert (node.get_port("r9", "gRPC"), node.is_port_allocated("r8", "HTTP")) == (40001, False)
    with pytest.raises(ValueError, match="not allocated"):
        node.get_port("r8", "HTTP")
    with pytest.raises(ValueError, match="Unsupported"):
        node.get_port("r9", "UNDEFINED")
    assert manager.any_pending_quarantine()
    manager.prune({"n1": {"r0", "r1", "r2", "r9"}})
    assert not manager.any_pending_quarantine()
    node.release_port("r0", 30000, "HTTP", block_port=True)
    manager.prune({"n1": {"r1", "r9"}})
    assert not node.is_port_allocated("r2", "HTTP")
    manager.ports.close()
    ledger = replay(read_journal(tmp_path / "log"))
    assert [ledger.port("http", port, node="n1").state.value for port in (30000, 30001, 30002)] == ["BLOCKED", "ALLOCATED", "QUARANTINED"]
    assert (ledger.spec("http").hold_s, ledger.spec("http").ranges, ledger.spec("grpc").ranges) == (150.0, "30000-30002", "40000-40001")


def test_a_ray_with_another_port_manager_is_half_replaced(ray, tmp_path):
    own = ray.module.NodePortManager
    del own.prune
    with pytest.raises(ImportError, match="has no prune"):
        ray_serve.install(journal=tmp_path / "log")
    assert ray.controller.NodePortManager is ray.module.NodePortManager is own


# ---------------------------------------------------------------------- Ray itself


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_a_real_controller_that_was_killed_gives_ports_away(tmp_path):
    """What Ray 2.60 does: app b gets the ports that a has just released. PORTFSM_RAY names a Python with Ray and portfsm's needs."""
    python = os.environ.get("PORTFSM_RAY") or (sys.executable if importlib.util.find_spec("ray") else None)
    if python is None:
        pytest.skip("no Ray here: pip install 'ray[serve]>=2.60', or PORTFSM_RAY=PYTHON")
    first = free_range(24)[0]
    script = Path(__file__).with_name("real_ray.py")
    ended = subprocess.run([python, script, tmp_path, str(first)], capture_output=True, text=True, timeout=160, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line) == {"a": [first, first + 1], "c": [first + 2, first + 3], "b": [first + 4, first + 5]}
    ledger = replay(read_journal(tmp_path / "log"))
    assert ledger.epoch >= 2
    assert [ledger.statistics("http").quarantined, ledger.statistics("http").blocked] == [2, 0]
