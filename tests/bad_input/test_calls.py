"""What no call of an open manager may take: each refused with a typed error that names the value and the way out.

`test_specs` and `test_commands` have every form of every argument; here the same junk comes in through the manager, on a log
in a directory, and what counts is what the log holds afterwards, byte by byte.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from portfsm import CommandRejected, InvalidValue, Lease, PortfsmError, PortOutOfRange, PortState, UnknownPool, open_manager
from portfsm.testing import ManualClock
from tests.bad_input.junk import CONTROLS, HTTP, NAN, NO_PORTS, NO_SECONDS, NO_TEXTS, TOO_LONG, tree

TEXTS = {
    "allocate(owner)": lambda manager, lease, text: manager.allocate("http", owner=text),
    "allocate(node)": lambda manager, lease, text: manager.allocate("http", owner="r2", node=text),
    "allocate(service)": lambda manager, lease, text: manager.allocate("http", owner="r2", service=text),
    "adopt(owner)": lambda manager, lease, text: manager.adopt("http", 30_002, owner=text),
    "adopt(node)": lambda manager, lease, text: manager.adopt("http", 30_002, owner="r2", node=text),
    "adopt(service)": lambda manager, lease, text: manager.adopt("http", 30_002, owner="r2", service=text),
    "release_owner(owner)": lambda manager, lease, text: manager.release_owner(text),
    "release_owner(node)": lambda manager, lease, text: manager.release_owner("r1", node=text),
    "block(node)": lambda manager, lease, text: manager.block("http", 30_002, node=text, reason="r"),
    "unblock(node)": lambda manager, lease, text: manager.unblock("http", 30_003, node=text),
    "hold(node)": lambda manager, lease, text: manager.hold("http", 30_002, node=text, hold_s=60),
    "free(node)": lambda manager, lease, text: manager.free("http", 30_001, node=text, reason="r"),
    "port(node)": lambda manager, lease, text: manager.port("http", 30_000, node=text),
    "ports(node)": lambda manager, lease, text: manager.ports("http", node=text),
    "statistics(node)": lambda manager, lease, text: manager.statistics("http", node=text),
    "explain(node)": lambda manager, lease, text: manager.explain("http", 30_000, node=text),
    "find(owner)": lambda manager, lease, text: manager.find(text),
}
REASONS = {
    "block(reason)": lambda manager, lease, text: manager.block("http", 30_002, reason=text),
    "unblock(reason)": lambda manager, lease, text: manager.unblock("http", 30_003, reason=text),
    "hold(reason)": lambda manager, lease, text: manager.hold("http", 30_002, hold_s=60, reason=text),
    "free(reason)": lambda manager, lease, text: manager.free("http", 30_001, reason=text),
    "release(block)": lambda manager, lease, text: manager.release(lease, block=text),
}
MAY_BE_LEFT_OUT = {"release_owner(node)", "ports(node)", "statistics(node)", "release(block)"}
"""None is a value there."""
PORTS = {
    "allocate(port)": lambda manager, lease, port: manager.allocate("http", owner="r2", port=port),
    "adopt(port)": lambda manager, lease, port: manager.adopt("http", port, owner="r2"),
    "block(port)": lambda manager, lease, port: manager.block("http", port, reason="r"),
    "unblock(port)": lambda manager, lease, port: manager.unblock("http", port),
    "hold(port)": lambda manager, lease, port: manager.hold("http", port, hold_s=60),
    "free(port)": lambda manager, lease, port: manager.free("http", port, reason="r"),
    "port(port)": lambda manager, lease, port: manager.port("http", port),
    "explain(port)": lambda manager, lease, port: manager.explain("http", port),
}
SECONDS = {
    "allocate(wait_s)": lambda manager, lease, seconds: manager.allocate("http", owner="r2", wait_s=seconds),
    "hold(hold_s)": lambda manager, lease, seconds: manager.hold("http", 30_002, hold_s=seconds),
    "block(for_s)": lambda manager, lease, seconds: manager.block("http", 30_002, reason="r", for_s=seconds),
    "release(for_s)": lambda manager, lease, seconds: manager.release(lease, block="r", for_s=seconds),
}
POOLS = {
    "allocate(pool)": lambda manager, lease, pool: manager.allocate(pool, owner="r2"),
    "adopt(pool)": lambda manager, lease, pool: manager.adopt(pool, 30_002, owner="r2"),
    "block(pool)": lambda manager, lease, pool: manager.block(pool, 30_002, reason="r"),
    "unblock(pool)": lambda manager, lease, pool: manager.unblock(pool, 30_003),
    "hold(pool)": lambda manager, lease, pool: manager.hold(pool, 30_002, hold_s=60),
    "free(pool)": lambda manager, lease, pool: manager.free(pool, 30_001, reason="r"),
    "port(pool)": lambda manager, lease, pool: manager.port(pool, 30_000),
    "ports(pool)": lambda manager, lease, pool: manager.ports(pool),
    "statistics(pool)": lambda manager, lease, pool: manager.statistics(pool),
    "explain(pool)": lambda manager, lease, pool: manager.explain(pool, 30_000),
}
LEASES = {
    "release(lease)": lambda manager, lease, other: manager.release(other),
    "release(lease, block)": lambda manager, lease, other: manager.release(other, block="in use"),
    "withdraw(lease)": lambda manager, lease, other: manager.withdraw(other),
}


async def refused(path: Path, call, values, *, kind=InvalidValue) -> list[PortfsmError]:
    """Make `call` with each value; every one is refused, and the log and the state stay as they were.

    30000 is held by r1, 30001 quarantined, 30003 blocked: a call that went through would change something.
    """
    errors = []
    async with open_manager(path, pools=[HTTP], clock=ManualClock()) as manager:
        lease = await manager.allocate("http", owner="r1")
        await manager.release(await manager.allocate("http", owner="former"))
        await manager.block("http", 30_003, reason="broken")
        log, seq, digest = tree(path), manager.seq, manager.digest()
        for value in values:
            with pytest.raises(kind) as caught:
                answer = call(manager, lease, value)
                if hasattr(answer, "__await__"):
                    await answer
            errors.append(caught.value)
            assert (manager.seq, manager.digest()) == (seq, digest), value
            assert tree(path) == log, value
        assert (await manager.allocate("http", owner="r1")) == lease, "and the manager goes on"
    return errors


def check(errors, values, parameter) -> None:
    """Each error carries its parameter and the value, and says so in one printable line."""
    for error, value in zip(errors, values, strict=True):
        assert error.name == parameter
        assert error.value is value or error.value == value
        assert parameter in str(error)
        assert str(error).isprintable(), "the message itself goes to terminals and logs"
        assert len(str(error)) < 400


def parameter(call: str) -> str:
    return call.partition("(")[2].strip(")")


@pytest.mark.anyio
@pytest.mark.parametrize("call", TEXTS | REASONS)
async def test_a_name_with_a_control_character_gets_into_the_log(tmp_path, call):
    values = [text for char in CONTROLS for text in (char, f"a{char}", f"{char}b", f"ä{char}€")]
    errors = await refused(tmp_path, (TEXTS | REASONS)[call], values)
    check(errors, values, parameter(call))
    assert all("remove it" in str(error) for error in errors)


@pytest.mark.anyio
@pytest.mark.parametrize("call", TEXTS)
async def test_a_name_counted_in_characters_is_longer_than_its_column(tmp_path, call):
    """256 bytes of UTF-8, whatever the letters."""
    errors = await refused(tmp_path, TEXTS[call], TOO_LONG)
    check(errors, TOO_LONG, parameter(call))
    assert all("256" in str(error) and "shorter" in str(error) for error in errors)


@pytest.mark.anyio
@pytest.mark.parametrize("call", REASONS)
async def test_a_reason_without_end_fills_the_log(tmp_path, call):
    values = ["x" * 1025, "ä" * 513, "x" * 10_000_000]
    check(await refused(tmp_path, REASONS[call], values), values, parameter(call))


@pytest.mark.anyio
@pytest.mark.parametrize("call", TEXTS | REASONS)
async def test_a_name_of_another_type_is_written_as_something(tmp_path, call):
    values = NO_TEXTS if call in MAY_BE_LEFT_OUT else [None, *NO_TEXTS]
    check(await refused(tmp_path, (TEXTS | REASONS)[call], values), values, parameter(call))


@pytest.mark.anyio
@pytest.mark.parametrize(
    "call", ["allocate(owner)", "adopt(owner)", "release_owner(owner)", "block(reason)", "free(reason)", "release(block)"]
)
async def test_nobody_holds_a_port_or_nothing_is_the_reason(tmp_path, call):
    errors = await refused(tmp_path, (TEXTS | REASONS)[call], [""])
    check(errors, [""], parameter(call))
    assert "must not be empty" in str(errors[0])


@pytest.mark.anyio
@pytest.mark.parametrize("call", PORTS)
async def test_a_port_that_is_none_is_looked_up_or_recorded(tmp_path, call):
    values = NO_PORTS if call == "allocate(port)" else [None, *NO_PORTS]
    errors = await refused(tmp_path, PORTS[call], values, kind=(InvalidValue, PortOutOfRange))
    for error, value in zip(errors, values, strict=True):
        assert f"{value!r}"[:20] in str(error)
        assert any(way in str(error) for way in ("1 to 65535", "30000-30003")), "the way out is a range"


@pytest.mark.anyio
@pytest.mark.parametrize("call", SECONDS)
async def test_a_time_that_never_comes_or_lies_in_the_past_is_recorded(tmp_path, call):
    errors = await refused(tmp_path, SECONDS[call], NO_SECONDS)
    for error, value in zip(errors, NO_SECONDS, strict=True):
        assert error.name == parameter(call)
        assert f"{value!r}"[:20] in str(error)
        assert "a number of seconds from 0" in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("call", POOLS)
async def test_a_pool_that_nobody_defined_comes_into_being(tmp_path, call):
    errors = await refused(tmp_path, POOLS[call], ["grpc", "HTTP", "http ", "", "../http"], kind=UnknownPool)
    assert all(error.known == ("http",) and "http" in str(error) for error in errors)


@pytest.mark.anyio
@pytest.mark.parametrize("call", POOLS)
async def test_a_pool_named_by_something_else_than_a_text_escapes_as_a_typeerror(tmp_path, call):
    await refused(tmp_path, POOLS[call], [*NO_TEXTS, *CONTROLS], kind=CommandRejected)


@pytest.mark.anyio
@pytest.mark.parametrize("call", LEASES)
async def test_something_else_than_a_lease_ends_one_or_escapes_as_an_attributeerror(tmp_path, call):
    values = [None, 30_000, "r1", b"r1", {"port": 30_000}, ("http", 30_000), object(), Lease]
    check(await refused(tmp_path, LEASES[call], values), values, "lease")


@pytest.mark.anyio
@pytest.mark.parametrize("call", LEASES)
@pytest.mark.parametrize(
    "change", [{"token": 10**9}, {"token": 0}, {"token": -1}, {"port": 1}, {"port": 65_535}, {"node": "elsewhere"}], ids=str
)
async def test_a_forged_lease_ends_somebody_elses(tmp_path, call, change):
    errors = await refused(tmp_path, lambda manager, lease, value: LEASES[call](manager, lease, attrs.evolve(lease, **value)), [change])
    assert errors[0].name == "lease"
    assert "another log" in str(errors[0])


@pytest.mark.anyio
async def test_a_state_spelt_as_text_escapes_as_a_keyerror(tmp_path):
    values = ["FREE", "free", 0, b"FREE", [PortState.FREE], object()]
    check(await refused(tmp_path, lambda manager, lease, state: manager.ports("http", state=state), values), values, "state")


@pytest.mark.anyio
async def test_a_watch_from_nowhere_reads_on_and_on(tmp_path):
    values = [-1, 10**9, 1.0, "1", b"1", True, NAN]
    check(await refused(tmp_path, lambda manager, lease, after: manager.watch(after=after), values), values, "after")
