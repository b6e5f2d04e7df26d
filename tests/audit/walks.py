"""Small histories in which everything happens, and what a brute-force replay says of them: a copy of the ledger after each event."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from hypothesis import strategies as st

from portfsm import Ledger, commands, decide
from portfsm._ledger import apply_all
from portfsm.errors import CommandRejected
from portfsm.events import Event
from portfsm.specs import PoolSpec

SECOND = 1_000_000_000
START = 1_785_542_280_000_000_000
NODES = ("", "node-b")
OWNERS = ("a", "b", "c", "d", "e")
SERVICES = ("", "x", "y")
RANGES = ("100-102", "100-101", "100-103", "101-103")


class Known(NamedTuple):
    """A history, and the state after each of its events; `states[seq]`, `states[0]` being the beginning."""

    events: list[Event]
    states: list[Ledger]

    def ts(self, seq: int) -> int:
        return self.events[seq - 1].ts if seq else 0

    @property
    def places(self) -> list[tuple[str, str, int]]:
        """Every port that an event names."""
        return sorted({(event.node, event.pool, event.port) for event in self.events if event.port})

    def view(self, seq: int, place):
        node, pool, port = place
        state = self.states[seq]
        return state.pool(pool, node).view(port) if pool in state.specs else None


class _Walk:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.events: list[Event] = []
        self.states = [Ledger()]
        self.now = START
        self.epoch = 0

    def do(self, command) -> None:
        with suppress(CommandRejected):
            events = decide(self.ledger, command, now_ns=self.now)
            for event in events:
                apply_all(self.ledger, (event,))
                self.events.append(event)
                self.states.append(self.ledger.copy())

    def open(self, *, lost=False) -> None:
        self.epoch += 1
        self.do(commands.Open(self.epoch, "h", "boot", self.now, self.now, lost=lost))

    def step(self, letter: str, one: int, two: int) -> None:
        owner, service, node = OWNERS[one % 5], SERVICES[two % 3], NODES[(one + two) % 5 == 4]
        port, leases = 100 + two % 5, self.ledger.find(owner)
        match letter:
            case "t":
                self.now += (1, SECOND, 4 * SECOND, 11 * SECOND)[two % 4]
            case "a":
                self.do(commands.Allocate("p", owner=owner, node=node, service=service))
            case "A":
                self.do(commands.Adopt("p", port, owner=owner, node=node, service=service))
            case "b":
                self.do(
                    commands.Block("p", port, node=node, reason="r", for_s=(None, 3.0)[one % 2], cause=("operator", "conflict")[two % 2])
                )
            case "u":
                self.do(commands.Unblock("p", port, node=node))
            case "h":
                self.do(commands.Hold("p", port, node=node, hold_s=20.0))
            case "f":
                self.do(commands.Free("p", port, node=node, reason="operator said so"))
            case "c":
                self.do(commands.Clear("p", port, node=node, reason="all clear"))
            case "s":
                self.do(commands.Sweep())
            case "d":
                self.do(commands.DefinePool(PoolSpec("p", ports=RANGES[one % 4], hold_s=(10.0, 0.0)[two % 2])))
            case "j":
                self.do(commands.Join("edge") if one % 2 else commands.Leave("edge", reason="gone"))
            case "o":
                self.open(lost=one % 4 == 0)
            case "r" | "w" | "x" | "B":
                for lease in leases[:1]:
                    self.do(
                        {
                            "r": commands.Release(lease),
                            "x": commands.Release(lease, cause=("reconciled", "expired")[two % 2]),
                            "w": commands.Withdraw(lease),
                            "B": commands.Release(lease, block="broken"),
                        }[letter]
                    )


def walk(steps) -> Known:
    """The history that the steps make."""
    made = _Walk()
    made.open()
    made.do(commands.DefinePool(PoolSpec("p", ports="100-102", hold_s=10.0)))
    for letter, one, two in steps:
        made.step(letter, one, two)
    return Known(made.events, made.states)


STEPS = st.lists(st.tuples(st.sampled_from("aaaaarrrrttttAbuhfcsdjowxB"), st.integers(0, 9), st.integers(0, 9)), max_size=50)
HISTORIES = STEPS.map(walk)
