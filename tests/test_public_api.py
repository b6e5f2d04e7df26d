"""What users import: every name there, explained, frozen and called as the contract has it; and nothing heavy comes along."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest

import portfsm
import portfsm.testing
from portfsm import (
    Allocate,
    Event,
    EventKind,
    Head,
    JournalLocked,
    Lease,
    MemoryJournal,
    PoolExhausted,
    PoolSpec,
    PoolStatistics,
    PortManager,
    PortState,
    PortView,
    open_manager,
    replay,
)
from portfsm.testing import ManualClock

PUBLIC = {name: getattr(portfsm, name) for name in portfsm.__all__}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
COMMANDS = (
    "Adopt",
    "Allocate",
    "AllocateGroup",
    "Block",
    "Free",
    "Hold",
    "Release",
    "ReleaseOwner",
    "Renew",
    "Sweep",
    "Unblock",
    "Withdraw",
)


# ---------------------------------------------------------------------- names


def test_a_public_name_out_of_order_or_named_twice():
    """Constants, classes, functions, each in the order of the alphabet, capitals first."""
    names = set(portfsm.__all__)
    assert list(portfsm.__all__) == sorted(names, key=lambda name: (not name.isupper(), name.islower() or "_" in name, name))


def test_a_star_that_brings_something_else():
    brought: dict[str, Any] = {}
    exec("from portfsm import *", brought)
    assert {name for name in brought if not name.startswith("__")} == set(portfsm.__all__)


@pytest.mark.parametrize("name", portfsm.testing.__all__)
def test_a_name_of_the_test_kit_that_is_not_there(name):
    assert getattr(portfsm.testing, name).__doc__


@pytest.mark.parametrize(
    "name",
    [
        *COMMANDS, "BoundLease", "CommandRejected", "EventKind", "Event", "Fenced", "FileJournal", "IllegalTransition", "InternalError", "Journal",
        "JournalCorrupt", "JournalError", "JournalFull", "JournalLocked", "Lease", "Ledger", "ManagerClosed", "MemoryJournal",
        "OutcomeUnknown", "OwnerConflict", "PoolExhausted", "PoolSpec", "PortManager", "PortOutOfRange", "PortState", "PortUnavailable",
        "PortfsmError", "Request", "StaleLease", "SystemClock", "TRANSITIONS", "UnknownPool", "apply", "decide", "open_manager", "read_journal", "replay",
    ],
)  # fmt: skip
def test_a_name_of_the_contract_that_is_missing(name):
    assert name in PUBLIC


@pytest.mark.parametrize(
    ("base", "names"),
    [
        (
            "CommandRejected",
            "PoolExhausted GroupUnavailable PortUnavailable OwnerConflict StaleLease UnknownPool PortOutOfRange IllegalTransition InvalidValue",
        ),
        ("JournalError", "JournalLocked JournalCorrupt JournalFull Fenced OutcomeUnknown JournalTooNew JournalUnreadable"),
        ("PortfsmError", "CommandRejected JournalError InternalError ManagerClosed"),
        ("PoolExhausted", "GroupUnavailable"),
        ("ValueError", "InvalidValue"),
    ],
)
def test_an_except_clause_that_catches_too_little(base, names):
    expected = PUBLIC.get(base, ValueError)
    assert all(issubclass(PUBLIC[name], expected) for name in names.split())


def test_an_error_that_belongs_to_nobody():
    errors = {kind for kind in CLASSES.values() if issubclass(kind, Exception)}
    assert all(issubclass(kind, portfsm.PortfsmError) for kind in errors)
    assert not issubclass(portfsm.JournalError, portfsm.CommandRejected)


# ---------------------------------------------------------------------- what is said about them


def members() -> Iterator[tuple[str, Any]]:
    """Every public class and function, and every public method and property that portfsm gave them."""
    for name, value in PUBLIC.items():
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield name, value
        for inner, member in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(member, "__func__", member)
            made_by_attrs = attrs.has(value) and inner in attrs.fields_dict(value)
            if not inner.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)) and not made_by_attrs:
                yield f"{name}.{inner}", function


MEMBERS = dict(members())


@pytest.mark.parametrize("name", MEMBERS)
def test_a_call_or_a_class_that_nobody_explains(name):
    """What a method of a protocol promises stands in the protocol, once."""
    owner, _, method = name.partition(".")
    text = inspect.getdoc(MEMBERS[name]) or ""
    if not text and owner in {"FileJournal", "MemoryJournal"}:
        text = inspect.getdoc(getattr(portfsm.CachingJournal, method)) or ""
    assert len(text.split()) >= 3


def test_a_docstring_left_to_attrs():
    for name, kind in CLASSES.items():
        assert not (kind.__doc__ or "").startswith(("Method generated", f"{name}(")), name


# ---------------------------------------------------------------------- signatures


def parameters(call) -> tuple[list[str], dict[str, object]]:
    """The positional names of a call, and the keyword-only ones with their defaults."""
    found = [each for each in inspect.signature(call).parameters.values() if each.name != "self"]
    assert not [each for each in found if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return [each.name for each in found if each.kind is not each.KEYWORD_ONLY], {
        each.name: "required" if each.default is each.empty else each.default for each in found if each.kind is each.KEYWORD_ONLY
    }


SIGNATURES = {
    "allocate": (["pool"], {"owner": "required", "node": "", "service": "", "port": None, "ttl_s": None, "wait_s": 0.0}),
    "allocate_group": (["requests"], {"wait_s": 0.0}),
    "lease": (["pool"], {"owner": "required", "node": "", "service": "", "port": None, "wait_s": 0.0}),
    "release": (["lease"], {"block": None, "for_s": None}),
    "renew": (["lease"], {}),
    "withdraw": (["lease"], {}),
    "release_owner": (["owner"], {"node": None}),
    "adopt": (["pool", "port"], {"owner": "required", "node": "", "service": ""}),
    "block": (["pool", "port"], {"node": "", "reason": "required", "for_s": None}),
    "unblock": (["pool", "port"], {"node": ""}),
    "hold": (["pool", "port"], {"node": "", "hold_s": "required"}),
    "free": (["pool", "port"], {"node": "", "reason": "required"}),
    "sweep": ([], {}),
    "reconcile": (["observation"], {"leak_grace_s": 60.0, "dry_run": False}),
    "listen": (["pool"], {"owner": "required", "node": "", "host": "127.0.0.1", "service": "", "attempts": 16}),
    "watch": ([], {"after": None}),
    "port": (["pool", "port"], {"node": ""}),
    "find": (["owner"], {}),
    "explain": (["pool", "port"], {"node": ""}),
    "digest": ([], {}),
}  # Section 4 of the contract.


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_option_that_goes_by_position_or_changed_its_default(name):
    """The calls may know more options than the contract, each with a default."""
    positional, options = parameters(getattr(PortManager, name))
    wanted, expected = SIGNATURES[name]
    assert positional == wanted
    assert {option: options[option] for option in expected} == expected
    assert all(default != "required" for option, default in options.items() if option not in expected)


@pytest.mark.parametrize(
    ("call", "positional", "options"),
    [
        (PoolSpec, ["name"], {"ports": "required", "hold_s": 10.0, "floor_s": 0.0, "order": "lowest"}),
        (open_manager, ["journal"], {"pools": ()}),
        (portfsm.decide, ["ledger", "command"], {"now_ns": "required"}),
        (portfsm.apply, ["ledger", "event"], {}),
        (portfsm.Observation, ["nodes", "live", "started_at_ns", "complete"], {}),
        (portfsm.Sighting, ["owner", "node", "pool", "port", "service"], {}),
        (replay, ["events"], {"until": None}),
    ],
)
def test_an_entrance_that_moved(call, positional, options):
    found, given = parameters(call)
    assert found == positional
    assert {name: given[name] for name in options} == options
    assert all(default != "required" for name, default in given.items() if name not in options)


def test_a_command_with_other_parameters_than_its_call():
    for name in ("adopt", "allocate", "block", "free", "hold", "release", "release_owner", "renew", "unblock", "withdraw"):
        positional, options = SIGNATURES[name]
        command = PUBLIC[name.title().replace("_", "")]
        found, given = parameters(command)
        expected = {option: default for option, default in options.items() if option != "wait_s"}
        assert found == positional
        assert {option: given.get(option, "missing") for option in expected} == expected


@pytest.mark.parametrize("name", ["seq", "durable_seq", "epoch", "head", "pools", "now_ns"])
def test_a_view_that_must_be_called_or_can_be_set(name):
    assert isinstance(getattr(PortManager, name), property)
    assert getattr(PortManager, name).fset is None


@pytest.mark.parametrize("name", ["port", "find", "ports", "statistics", "digest", "explain", "watch"])
def test_a_view_that_must_be_awaited(name):
    assert not inspect.iscoroutinefunction(getattr(PortManager, name))


# ---------------------------------------------------------------------- values


LEASE = Lease("http", "", 30_000, "r1", "s", 7, 1)
VALUES = [
    LEASE,
    PoolSpec("http", ports="1-5"),
    PortView("", "http", 1, PortState.FREE, "", "", 0, None, None, ""),
    PoolStatistics(5, 5, 0, 0, 0, 0),
    Head("log", 1, "abc"),
    Event(1, 1, EventKind.CLOSED),
    Allocate("http", owner="r1"),
    portfsm.Request("http", "r1"),
    portfsm.AllocateGroup([portfsm.Request("http", "r1", count=2)]),
    portfsm.Release(LEASE),
    portfsm.Block("http", 1, reason="r"),
    portfsm.Sweep(),
    portfsm.Sighting("r1", "", "http", 1),
    portfsm.ReconcileReport((LEASE,), (), (), (), (), (), ()),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_that_changes_in_somebody_elses_hands(value):
    for name in [field.name for field in attrs.fields(type(value))] if attrs.has(type(value)) else msgspec.structs.asdict(value):
        with pytest.raises(AttributeError):
            setattr(value, name, getattr(value, name))
    copy = attrs.evolve if attrs.has(type(value)) else msgspec.structs.replace
    assert copy(value) == value
    assert copy(value) is not value


def test_a_lease_or_a_port_that_lacks_a_field():
    assert [field.name for field in attrs.fields(Lease)] == [
        "pool", "node", "port", "owner", "service", "token", "since_ns", "expires_ns",
    ]  # fmt: skip
    assert {"node", "pool", "port", "state", "owner", "service", "token", "since", "until", "reason"} <= set(attrs.fields_dict(PortView))


def test_a_state_or_a_kind_under_another_word():
    assert [state.value for state in PortState] == [state.name for state in PortState] == ["FREE", "ALLOCATED", "QUARANTINED", "BLOCKED"]
    assert {"allocated", "adopted", "withdrawn", "released", "held", "freed", "blocked", "unblocked"} < {kind.value for kind in EventKind}


# ---------------------------------------------------------------------- errors


@pytest.mark.anyio
async def test_exhaustion_that_leaves_its_reader_alone(clock):
    async with open_manager("memory:", pools=[PoolSpec("http", ports="30000-30001", hold_s=10)], clock=clock) as manager:
        await manager.release(await manager.allocate("http", owner="a"))
        await manager.allocate("http", owner="b")
        with pytest.raises(PoolExhausted) as caught:
            await manager.allocate("http", owner="c")
    assert caught.value.counts == {"FREE": 0, "ALLOCATED": 1, "QUARANTINED": 1, "BLOCKED": 0}
    assert caught.value.next_free_at == clock.wall_ns() + 10_000_000_000
    assert caught.value.short_by >= 1
    assert f"needs {caught.value.short_by} more" in str(caught.value)
    assert "wait_s=" in str(caught.value)


def test_a_locked_log_that_does_not_say_by_whom(tmp_path):
    first, second = portfsm.FileJournal(tmp_path), portfsm.FileJournal(tmp_path)
    first.open("the first controller")
    with pytest.raises(JournalLocked) as caught:
        second.open("the second one")
    first.close()
    assert (caught.value.pid, caught.value.holder, caught.value.path) == (os.getpid(), "the first controller", str(tmp_path))
    assert all(part in str(caught.value) for part in (str(os.getpid()), "the first controller", "stop it first"))


# ---------------------------------------------------------------------- what comes along


@pytest.mark.parametrize("heavy", ["rich", "click", "multiprocessing", "trio", "uvloop", "pytest", "hypothesis"])
def test_an_import_that_drags_in_a_terminal_a_loop_or_processes(heavy):
    """A controller pays for what it uses. (structlog takes rich along wherever it is installed, so: importing must not ask for it.)"""
    program = f"""
import sys
sys.modules["{heavy}"] = None
import portfsm
print(*(name for name in sys.modules if name.startswith(("portfsm.cli", "portfsm.demo", "portfsm.testing"))))
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split() == []


def test_a_terminal_imported_by_portfsm_itself():
    program = "import sys, anyio, attrs, msgspec, structlog; before = {*sys.modules}; import portfsm; print(*({*sys.modules} - before))"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in outcome.stdout.split()}.isdisjoint({"rich", "click", "multiprocessing", "trio", "uvloop"})


# ---------------------------------------------------------------------- the program that the contract shows


@pytest.mark.anyio
async def test_the_contracts_first_program_that_does_not_run(tmp_path):
    pools = [
        PoolSpec("http", ports="30000-30999", hold_s=10.0),
        PoolSpec("grpc", ports="40000-40999,41500", hold_s=150.0, floor_s=1.0, order="longest-idle"),
    ]
    async with portfsm.open_manager(tmp_path / "ports-log", pools=pools, clock=portfsm.SystemClock()) as manager:
        lease = await manager.allocate("http", owner="replica-1", node="node-a", service="checkout")
        await manager.release(lease)
        assert manager.pools["grpc"].ports == (range(40_000, 41_000), range(41_500, 41_501))
    ledger = replay(portfsm.read_journal(tmp_path / "ports-log"))
    assert ledger.port("http", lease.port, node="node-a").state is PortState.QUARANTINED


@pytest.mark.anyio
async def test_a_log_in_memory_that_cannot_be_opened_again():
    journal, clock = MemoryJournal(), ManualClock(start_ns=1_700_000_000_000_000_000)
    for turn in (1, 2):
        async with open_manager(journal, pools=[PoolSpec("http", ports="1-5")], clock=clock) as manager:
            assert (await manager.allocate("http", owner="a")).port == 1
            assert manager.epoch == turn
        clock.advance(1.5)
