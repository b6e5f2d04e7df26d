"""What follows for a port from the answers of one round. Pure.

The rule, worker by worker. A *current* worker has let go of an address when it has no slot there and its configuration is
not older than the question, or when every slot there is in maintenance; and when, seen after that, no stream of such a slot is
still on its way to a connection. An *old* worker has let go when it has no slot there, or when it is stopping, relays all
it still reads to its successor, and no stream of such a backend is on its way. Any other worker holds the port until it exits, and so
does one of either kind that has a stream on its way of which nobody knows where to.

A round is believed only when the list of processes is the same before and after it, but for old workers that have gone.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

import attrs

from portfsm.evidence import Verdict
from portfsm.witnesses._haproxy_answers import ESTABLISHED, NOBODYS, Slot, Worker, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from portfsm.witnesses._haproxy_answers import Listing, Place, Stream

__all__ = ["Judgement", "Moves", "judge", "judge_all", "lasting", "lowest_generation", "slots_at", "unsettled"]

_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104  (a slot's address, which stands for any)
_TRIES = 3
"""Of `scb=[N`: from here on a stream has an address."""
_STATES = {2: "queued", 3: "waiting to try again", 4: "about to connect", 5: "connecting", 6: "failing", 7: "connecting", 8: "connected"}


@attrs.frozen
class Judgement:
    """A verdict on one place, and why."""

    verdict: Verdict
    reason: str


def judge(workers: Sequence[Worker], host: str, port: int, since: int, *, retries_replies: bool = False) -> Judgement:
    """CLEAR with what it rests on, or HELD with every worker that holds the place. `workers` are all of a settled round."""
    return _judge(workers, canonical(host), port, since, limit_of(retries_replies=retries_replies))


def _judge(workers: Sequence[Worker], host: str, port: int, since: int, limit: int) -> Judgement:
    found = [(worker, slots_at(worker.slots, host, port)) for worker in workers]
    held = [reason for worker, slots in found if (reason := _holds(worker, slots, host, port, since, limit))]
    if held:
        return Judgement(Verdict.HELD, "; ".join(held))
    return Judgement(Verdict.CLEAR, "; ".join([_lets_go(worker, slots) for worker, slots in found]))


def judge_all(workers: Sequence[Worker], places: Iterable[tuple[str, int, int]], *, retries_replies: bool = False) -> Iterator[Judgement]:
    """`judge` for many (host, port, since). Where no worker has a slot only `since` matters, so one verdict serves them all."""
    used = {0}.union(*(worker.slots for worker in workers))
    lowest, absent = lowest_generation(workers), dict[int, Judgement]()
    shared = not any(worker.unreadable or 0 in worker.slots for worker in workers) and lowest is not None
    limit = limit_of(retries_replies=retries_replies)
    for host, port, since in places:
        key = since if lowest is None or since > lowest else lowest
        found = absent.get(key) if shared and port not in used else None
        if found is None:
            found = _judge(workers, canonical(host), port, since, limit)
            if port not in used:
                absent[key] = found
        yield found


def lasting(
    said: Judgement, place: tuple[str, int, int], generation: int | None, restored: Mapping[int, Sequence[Slot]] | str
) -> Judgement:
    """What was said, unless the next reload would undo it.

    `generation`: what the file that it reads is known to be of; None where nobody looks. `restored`: the slots of the state file that it
    reads, or why nothing may be believed.
    """
    host, port, since = place
    if said.verdict is not Verdict.CLEAR:
        return said
    if generation is not None and since > generation:
        why = f"in maintenance, but the file is not known to be of generation {since} or later: the next reload would bring the port back"
        return Judgement(Verdict.HELD, why)
    if isinstance(restored, str):
        return Judgement(Verdict.HELD, restored)
    if serving := [slot for slot in slots_at(restored, canonical(host), port) if not slot.maintenance]:
        return Judgement(Verdict.HELD, f"the state file has {_slots(serving)} in service there: the next reload would bring the port back")
    return said


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


def slots_at(table: Mapping[int, Sequence[Slot]], host: str, port: int) -> list[Slot]:
    """The slots of a table (by port) that are, or may be, at an address.

    What a name means to the proxy is not known here: a host in numbers may be any name's, a name any number's. Only
    two names are compared. A slot with neither ("-") is a unix socket; one at 0.0.0.0 or :: connects to where its client did.
    """
    nearby = (*table.get(port, ()), *table.get(0, ()))
    if not _is_literal(host):
        return [slot for slot in nearby if (slot.name.lower() == host.lower() if slot.name else slot.address != "-")]
    if host in _ANY_HOST:
        return [slot for slot in nearby if slot.name or slot.address != "-"]
    return [slot for slot in nearby if slot.name or slot.address == host or slot.address in _ANY_HOST]


def _is_at(slot: Slot, host: str, port: int) -> bool:
    """Whether a slot is at an address for certain: the one that is asked about, not one that may be anywhere."""
    return slot.port == port and (slot.address == host or slot.name.lower() == host.lower())


@functools.lru_cache(1024)
def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------- one worker


def _holds(worker: Worker, slots: list[Slot], host: str, port: int, since: int, limit: int) -> str:
    """Why a worker with these slots at an address holds it; empty when it has let go."""
    if worker.unreadable:
        return f"{_name(worker)} holds every port: {worker.unreadable}"
    if worker.old:
        return _old_holds(worker, slots, limit) or _astray(worker)
    return _current_holds(worker, slots, host, port, since, limit) or _astray(worker)


def _current_holds(worker: Worker, slots: list[Slot], host: str, port: int, since: int, limit: int) -> str:
    if watched := [slot for slot in slots if slot.agent]:
        return f"{_name(worker)} has {_slots(watched)} at that address, and an agent check can put it into service"
    if serving := [slot for slot in slots if not slot.maintenance]:
        return f"{_name(worker)} has {_slots(serving)} in service at that address"
    seen = any(_is_at(slot, host, port) for slot in slots)  # a slot that may be anywhere says nothing of one that is not there yet
    if not seen and worker.generation is None:
        return f"{_name(worker)} does not say which generation its configuration is: add `setenv GEN` to its global section"
    if not seen and worker.generation is not None and worker.generation < since:
        return f"{_name(worker)} runs generation {worker.generation}, older than {since}"
    return _on_the_way(worker, {NOBODYS, *(slot.place for slot in slots)} if slots else (), limit)


def _old_holds(worker: Worker, slots: list[Slot], limit: int) -> str:
    if slots and not worker.stopping:
        return f"{_name(worker)} still has {_slots(slots)} at that address and was never told to stop"
    if slots and not worker.relays:
        return f"{_name(worker)} still has {_slots(slots)} at that address and serves its clients until it exits"
    # Another slot of the backend may be left for this one (redispatch), and a stream without a slot may choose it.
    backends = {slot.backend for slot in slots}
    others = {place for place in worker.early if place[0] in backends or place == NOBODYS} if backends else set()
    return _on_the_way(worker, others.union(slot.place for slot in slots), limit)


def _on_the_way(worker: Worker, places: Iterable[Place], limit: int) -> str:
    for place in sorted(places) if worker.early else ():
        if (state := worker.early.get(place, limit)) < limit:
            return f"{_name(worker)} has a stream of {_whose(place)} that is {_STATES.get(state, 'on its way')} (scb={state})"
    return ""


def _astray(worker: Worker) -> str:
    if not worker.strays:
        return ""
    return f"{_name(worker)} has a stream of {_whose(worker.strays[0])} on its way that began before the slot was seen where it is"


def _whose(place: Place) -> str:
    return "/".join(filter(None, place)) or "its own (to a log, a peer or an agent, it does not say)"


def _lets_go(worker: Worker, slots: list[Slot]) -> str:
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
    """Finds the streams that may have an address which their slot has no more.

    A stream that tries again keeps the address that it began with, also when the slot is given another, and no answer names it.
    But it tells how many listings of streams there had been when it began. So one that began after a slot was seen where it is goes
    there; of one from before nobody knows.
    """

    def __init__(self, *, retries_replies: bool = False) -> None:
        self._limit = limit_of(retries_replies=retries_replies)
        self._seen: dict[int, dict[Place, tuple[tuple[str, int], int]]] = {}
        """pid -> slot -> its address, and the last epoch before which a stream may have begun when it had another."""

    def keep(self, pids: Iterable[int]) -> None:
        """Forget all other processes."""
        kept = set(pids)
        for pid in self._seen.keys() - kept:
            del self._seen[pid]

    def told(self, worker: Worker) -> Worker:
        """The worker with its strays."""
        seen, table = self._seen.setdefault(worker.pid, {}), dict(_addresses(worker))
        # Streams are listed after the table: all that began before it are among them or over.
        epoch = max((stream.epoch for stream in worker.streams), default=0)
        for place, address in table.items():
            if place not in seen or seen[place][0] != address:
                seen[place] = address, epoch
        for place in seen.keys() - table.keys():  # a server that was deleted: nothing is known of its streams
            seen[place] = ("", 0), epoch
        strays = {stream.place for stream in worker.streams if self._is_stray(stream, seen)}
        for place in seen.keys() - table.keys() - strays:
            del seen[place]
        return attrs.evolve(worker, strays=sorted(strays)) if strays else worker

    def _is_stray(self, stream: Stream, seen: Mapping[Place, tuple[tuple[str, int], int]]) -> bool:
        if not _TRIES <= stream.state < self._limit:
            return False  # below it has no address yet
        if stream.place == NOBODYS:
            return stream.epoch <= max((epoch for _, epoch in seen.values()), default=-1)
        # What is no slot of the table (the command line) never was one.
        return stream.place in seen and stream.epoch <= seen[stream.place][1]


def _addresses(worker: Worker) -> Iterable[tuple[Place, tuple[str, int]]]:
    return ((slot.place, (slot.address, slot.port)) for slots in worker.slots.values() for slot in slots)
