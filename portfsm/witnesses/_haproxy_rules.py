"""What follows for a port from the answers of one round. Pure.

The rule, worker by worker. A *current* worker has let go of an address when it has no slot there and its configuration is
not older than the question, or when every slot there is in maintenance; and when, seen after that, no stream of such a slot is
still on its way to a connection. An *old* worker has let go when it has no slot there, or when it is stopping, relays all
it still reads to its successor, and no stream of such a backend is on its way. Any other worker holds the port until it exits.

A round is believed only when the list of processes is the same before and after it, but for old workers that have gone.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

import attrs

from portfsm.evidence import Verdict
from portfsm.witnesses._haproxy_answers import ESTABLISHED, Slot, Worker, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from portfsm.witnesses._haproxy_answers import Listing, Place

__all__ = ["Judgement", "Moves", "judge", "judge_all", "lowest_generation", "slots_at", "unsettled"]

_STATES = {2: "queued", 3: "waiting to try again", 4: "about to connect", 5: "connecting", 6: "failing", 7: "connecting", 8: "connected"}


@attrs.frozen
class Judgement:
    """A verdict on one place, and why."""

    verdict: Verdict
    reason: str


def judge(workers: Sequence[Worker], host: str, port: int, since: int, *, retries_replies: bool = False) -> Judgement:
    """CLEAR with what it rests on, or HELD with every worker that holds the place. `workers` are all of a settled round."""
    host, limit = canonical(host), limit_of(retries_replies=retries_replies)
    held = [reason for worker in workers if (reason := _holds(worker, host, port, since, limit))]
    if held:
        return Judgement(Verdict.HELD, "; ".join(held))
    return Judgement(Verdict.CLEAR, "; ".join(_lets_go(worker, host, port) for worker in workers))


def judge_all(workers: Sequence[Worker], places: Iterable[tuple[str, int, int]], *, retries_replies: bool = False) -> Iterator[Judgement]:
    """`judge` for many (host, port, since). Where no worker has a slot only `since` matters, so one verdict serves them all."""
    used = {0}.union(*(worker.slots for worker in workers), *({port for _, port in worker.former} for worker in workers))
    lowest, absent = lowest_generation(workers), dict[int, Judgement]()
    shared = not any(worker.unreadable or 0 in worker.slots for worker in workers) and lowest is not None
    for host, port, since in places:
        key = since if lowest is None or since > lowest else lowest
        found = absent.get(key) if shared and port not in used else None
        if found is None:
            found = judge(workers, host, port, since, retries_replies=retries_replies)
            if port not in used:
                absent[key] = found
        yield found


def limit_of(*, retries_replies: bool) -> int:
    """The first state of a stream that opens no connection any more: with retries of answers (`retry-on 503`) there is none."""
    return 1 << 31 if retries_replies else ESTABLISHED


def unsettled(before: Listing, after: Listing, unanswered: Iterable[int]) -> str:
    """Why answers given between two listings prove nothing; empty when they do."""
    if not before.workers:
        return f"master {before.master} shows no current worker: it is starting, reloading or ending"
    if (before.master, before.reloads, before.workers) != (after.master, after.reloads, after.workers):
        return f"master {before.master} reloaded or lost a worker while it was asked"
    if new := set(after.old) - set(before.old):
        return f"worker {min(new)} became an old worker while it was asked"
    if silent := set(unanswered) & {*after.workers, *after.old}:
        return f"worker {min(silent)} did not answer all questions"
    return ""


def lowest_generation(workers: Iterable[Worker]) -> int | None:
    """What the current workers' configurations were made from; None when one does not say."""
    said = [worker.generation for worker in workers if not worker.old]
    return None if None in said else min((generation for generation in said if generation is not None), default=None)


def slots_at(worker: Worker, host: str, port: int) -> list[Slot]:
    """The slots of a worker that are, or may be, at an address.

    What a name means to the proxy is not known here: a host in numbers may be any name's, a name any number's. Only
    two names are compared. A slot with neither ("-") is a unix socket.
    """
    nearby = [slot for slot in (*worker.slots.get(port, ()), *worker.slots.get(0, ())) if slot.name or slot.address != "-"]
    if _is_literal(host):
        return [slot for slot in nearby if slot.name or slot.address == host]
    return [slot for slot in nearby if not slot.name or slot.name.lower() == host.lower()]


@functools.lru_cache(1024)
def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------- one worker


def _holds(worker: Worker, host: str, port: int, since: int, limit: int) -> str:
    if worker.unreadable:
        return f"{_name(worker)} holds every port: {worker.unreadable}"
    slots = slots_at(worker, host, port)
    places = {slot.place for slot in slots} | set(worker.former.get((host, port), ()))
    return _old_holds(worker, slots, places, limit) if worker.old else _current_holds(worker, slots, places, since, limit)


def _current_holds(worker: Worker, slots: list[Slot], places: set[Place], since: int, limit: int) -> str:
    if serving := [slot for slot in slots if not slot.maintenance]:
        return f"{_name(worker)} has {_slots(serving)} in service at that address"
    if not slots and worker.generation is None:
        return f"{_name(worker)} does not say which generation its configuration is: add `setenv GEN` to its global section"
    if not slots and worker.generation is not None and worker.generation < since:
        return f"{_name(worker)} runs generation {worker.generation}, older than {since}"
    return _on_the_way(worker, places, limit)


def _old_holds(worker: Worker, slots: list[Slot], places: set[Place], limit: int) -> str:
    if slots and not worker.stopping:
        return f"{_name(worker)} still has {_slots(slots)} at that address and was never told to stop"
    if slots and not worker.relays:
        return f"{_name(worker)} still has {_slots(slots)} at that address and serves its clients until it exits"
    # Another slot of the backend may be left for this one (redispatch), and a stream without a slot may choose it.
    backends = {slot.backend for slot in slots}
    return _on_the_way(worker, places | {place for place in worker.early if place[0] in backends}, limit)


def _on_the_way(worker: Worker, places: Iterable[Place], limit: int) -> str:
    for place in sorted(places):
        if (state := worker.early.get(place, limit)) < limit:
            where = "/".join(filter(None, place))
            return f"{_name(worker)} has a stream of {where} that is {_STATES.get(state, 'on its way')} (scb={state})"
    return ""


def _lets_go(worker: Worker, host: str, port: int) -> str:
    slots = slots_at(worker, host, port)
    if not slots:
        return f"{_name(worker)} has no slot there" + ("" if worker.old else f" (generation {worker.generation})")
    if worker.old:
        return f"{_name(worker)} is stopping and relays what it still reads"
    return f"{_name(worker)} has {_slots(slots)} in maintenance"


def _name(worker: Worker) -> str:
    return f"{'old ' * worker.old}worker {worker.pid}"


def _slots(slots: Sequence[Slot]) -> str:
    shown = ", ".join("/".join(slot.place) for slot in slots[:3])
    return shown + (f" and {len(slots) - 3} more" if len(slots) > 3 else "")  # noqa: PLR2004  (as many as are shown)


# ---------------------------------------------------------------------- what was where


class Moves:
    """Remembers which address a slot had in an earlier round, as long as it has a stream that may have started there.

    A stream that tries again keeps the address that it began with, also when the slot is given another.
    """

    def __init__(self, *, retries_replies: bool = False) -> None:
        self._limit = limit_of(retries_replies=retries_replies)
        self._last: dict[int, dict[Place, tuple[str, int]]] = {}
        self._former: dict[int, dict[Place, set[tuple[str, int]]]] = {}

    def keep(self, pids: Iterable[int]) -> None:
        """Forget all other processes."""
        kept = set(pids)
        for pid in self._last.keys() - kept:
            del self._last[pid], self._former[pid]

    def told(self, worker: Worker) -> Worker:
        """The worker with the addresses that its slots had."""
        last, former = self._last.setdefault(worker.pid, {}), self._former.setdefault(worker.pid, {})
        for place, address in _addresses(worker):
            if last.setdefault(place, address) != address:
                former.setdefault(place, set()).add(last[place])
                last[place] = address
        # Streams are listed after the table, so a slot without any on its way has none left from before it moved.
        for place in [place for place in former if worker.early.get(place, self._limit) >= self._limit]:
            del former[place]
        return attrs.evolve(worker, former=_turned(former)) if former else worker


def _addresses(worker: Worker) -> Iterable[tuple[Place, tuple[str, int]]]:
    return ((slot.place, (slot.address, slot.port)) for slots in worker.slots.values() for slot in slots)


def _turned(former: Mapping[Place, Iterable[tuple[str, int]]]) -> dict[tuple[str, int], list[Place]]:
    turned: dict[tuple[str, int], list[Place]] = {}
    for place, addresses in former.items():
        for address in addresses:
            turned.setdefault(address, []).append(place)
    return turned
