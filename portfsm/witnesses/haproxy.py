"""An HAProxy in master-worker mode, asked through its master socket (`haproxy -W -S SOCKET`).

One round asks every process of it, old workers included, and answers for any number of ports. No answer is believed unless all
of them came and the list of processes stayed the same meanwhile. What the configuration must carry is in `preflight`.

A slot is withdrawn by a reload without it, or by maintenance. The next reload brings back what the file has. So maintenance counts
for as long as nobody reloads an older file: with `ports_file` the witness sees to that, and says CLEAR only once the file cannot have the
port; without it that is the controller's business: write first, withdraw then.
Giving a slot another address instead leaves streams that try again at the old one, which no answer names: a port is held until those
are over that began before the slot was seen where it is.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from portfsm.evidence import Evidence, Verdict
from portfsm.witnesses._asking import Named
from portfsm.witnesses._haproxy_answers import Unreadable, Worker, canonical, questions, read_listing, read_worker, table_of
from portfsm.witnesses._haproxy_file import ConfigFile, PortsFile, StateFile
from portfsm.witnesses._haproxy_lost import Lost
from portfsm.witnesses._haproxy_preflight import Preflight, examine, unreachable, void
from portfsm.witnesses._haproxy_rules import Judgement, Moves, judge_all, lasting, lowest_generation, unsettled
from portfsm.witnesses._socket import Unanswered, put

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from portfsm.protocols import Clock
    from portfsm.witnesses._asking import Place
    from portfsm.witnesses._haproxy_answers import Listing, Slot

    Restored = Mapping[int, Sequence[Slot]] | str

__all__ = ["HAProxyWitness"]

_MAX_CONFIG = 16 << 20
_MAX_QUESTION = 12_000
"""Bytes of one question: HAProxy's buffers have 16 KiB by default, a part of them kept back."""


@attrs.frozen
class _Round:
    """The answers of all processes, settled."""

    listing: Listing
    workers: tuple[Worker, ...]


class HAProxyWitness(Named):
    """Says when one HAProxy has let go of a port. One connection at a time, each question within `deadline_s`."""

    def __init__(
        self,
        master_socket: str | os.PathLike[str],
        *,
        proxy: str,
        fallback_s: float | None = None,
        ports_file: str | os.PathLike[str] | None = None,
        state_file: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
        retries_replies: bool = False,
        deadline_s: float = 0.5,
        max_bytes: int = 64 << 20,
        clock: Clock | None = None,
    ) -> None:
        """With `retries_replies` (`retry-on` names more than conn-failure) streams that wait for a reply hold a port too.

        `ports_file` is the file with `setenv GEN` that each reload reads: give it, and maintenance counts only once that file is newer
        than the release, so that no reload brings the port back. `state_file` is what a reload loads the servers' state from, if it does
        (a directory where each backend has its own): a port that is in service there is held.
        `config` is the whole configuration, a file or a directory of `*.cfg`: while it has a line with which evidence is wrong (see
        `preflight`) every port is held. `max_bytes` bounds the memory for one answer.
        """
        self._path = str(master_socket)
        super().__init__(proxy, fallback_s, deadline_s=deadline_s, clock=clock)
        self._retries_replies, self._max_bytes = retries_replies, max_bytes
        self._file = None if ports_file is None else PortsFile(ports_file)
        self._state = None if state_file is None else StateFile(state_file)
        against = partial(void, retries_replies=retries_replies, restores=state_file is not None)
        self._config = None if config is None else ConfigFile(config, against)
        self._lost = Lost(self._path)
        self._lock = anyio.Lock()
        self._moves = Moves(retries_replies=retries_replies)
        self._started = (0, 0)

    async def check_many(self, places: Iterable[tuple[str, int, int]]) -> list[Evidence]:
        """Evidence for each (host, port, since), in order, from one round. Never raises."""
        asked = list(places)
        async with self._lock:
            asked_at = self._clock.boot_ns()
            # Before anything is asked: a reload that read an older file shows among the answers.
            on_file = await anyio.to_thread.run_sync(self._read_files) if self._file or self._state or self._config else (None, {})
            try:
                outcome: _Round | str = await self._round()
            except (Unanswered, Unreadable) as error:
                outcome = str(error)
            return self._evidence(asked, outcome, *on_file, (asked_at, self._clock.boot_ns()))

    async def withdraw(self, host: str, port: int, since: int) -> None:
        """Put every slot at the address into maintenance, in each running worker. Never raises: `check` tells what became of it."""
        await self.withdraw_many([(host, port, since)])

    async def withdraw_many(self, places: Iterable[tuple[str, int, int]]) -> None:
        """The same for many (host, port, since), with one look at each worker's table."""
        addresses = {(canonical(host).lower(), port) for host, port, _ in places}
        if not addresses:
            return
        async with self._lock:
            with suppress(Unanswered, Unreadable):
                for pid in (await self._listing()).workers:
                    await self._maintain(pid, addresses)

    async def changed(self) -> AsyncIterator[None]:
        """Never yields: HAProxy tells nobody, and watching it would cost as much as asking again, which takes 2 ms."""
        await anyio.sleep_forever()
        yield

    async def preflight(self, *, config: str | os.PathLike[str] | None = None) -> Preflight:
        """What the configuration lacks for evidence to be right, each with the line to add. Never raises.

        Some of it cannot be asked: with `config`, a file or a directory of `*.cfg`, the text is read too.
        """
        async with self._lock:
            try:
                listing = await self._listing()
                answers = [(pid, await self._put(questions(pid))) for pid in listing.workers]
            except (Unanswered, Unreadable) as error:
                return unreachable(str(error), self._path)
        text, trouble = await anyio.to_thread.run_sync(_read_config, config)
        return examine(listing, answers, text, trouble, retries_replies=self._retries_replies, restores=self._state is not None)

    # ------------------------------------------------------------------ asking

    def _read_files(self) -> tuple[int | None, Restored]:
        """In a thread."""
        trouble = self._config.trouble() if self._config else ""
        restored = self._state.slots() if self._state else {}
        return self._file.generation() if self._file else None, trouble or restored

    async def _put(self, question: str) -> str:
        return await put(self._path, question, deadline_s=self._deadline_s, max_bytes=self._max_bytes)

    async def _listing(self) -> Listing:
        try:
            return read_listing(await self._put("show proc"))
        except Unreadable as error:
            raise Unreadable(f"{self._path} is no HAProxy master socket, or starting: {error}") from None

    async def _round(self) -> _Round:
        before = await self._listing()
        workers, silent = [], []
        for pid in (*before.workers, *before.old):
            worker = await self._worker(pid, old=pid in before.old)
            workers += [worker] if worker else []
            silent += [] if worker else [pid]
        lost = await anyio.to_thread.run_sync(self._lost.look, before)
        after = await self._listing()
        if why := unsettled(before, after, silent):
            raise Unanswered(why)
        self._moves.keep([*after.workers, *after.old])
        alive = {*after.workers, *after.old}  # the exit of an old worker meanwhile clears whatever it held
        strangers = (Worker(pid, old=True, unreadable="its master does not know it any more; end it") for pid in lost)
        return _Round(after, (*(self._moves.told(worker) for worker in workers if worker.pid in alive), *strangers))

    async def _worker(self, pid: int, *, old: bool) -> Worker | None:
        try:
            return read_worker(pid, await self._put(questions(pid)), old=old)
        except Unanswered as error:
            raise Unanswered(f"{'old ' * old}worker {pid}: {error}") from error

    async def _maintain(self, pid: int, addresses: set[tuple[str, int]]) -> None:
        with suppress(Unanswered, Unreadable):  # the next worker may still listen
            table = table_of((await self._put(f"@!{pid} show servers state")).rstrip())
            there = [slot for slot in table if not addresses.isdisjoint({(slot.address, slot.port), (slot.name.lower(), slot.port)})]
            lines = [f"@!{pid} disable agent {slot.backend}/{slot.server}" for slot in there if slot.agent]
            lines += [f"@!{pid} set server {slot.backend}/{slot.server} state maint" for slot in there if not slot.maintenance]
            for some in _batched(lines):
                await self._put("; ".join(some))

    # ------------------------------------------------------------------ telling

    def _evidence(
        self, asked: Sequence[Place], outcome: _Round | str, on_file: int | None, restored: Restored, times: tuple[int, int]
    ) -> list[Evidence]:
        if isinstance(outcome, str):
            return [Evidence(self._proxy, "", since, Verdict.UNKNOWN, None, outcome, *times) for _, _, since in asked]
        incarnation, generation = self._incarnation(outcome.listing), lowest_generation(outcome.workers)
        judged: Iterable[Judgement] = judge_all(outcome.workers, asked, retries_replies=self._retries_replies)
        known = None if self._file is None else max(-1 if found is None else found for found in (generation, on_file))
        judged = (lasting(said, place, known, restored) for place, said in zip(asked, judged, strict=True))
        return [
            Evidence(self._proxy, incarnation, since, said.verdict, generation, said.reason, *times)
            for (_, _, since), said in zip(asked, judged, strict=True)
        ]

    def _incarnation(self, listing: Listing) -> str:
        return f"{listing.master}@{_kernel_start(listing.master) or self._estimated_start(listing)}"

    def _estimated_start(self, listing: Listing) -> int:
        # The uptime is in whole seconds: an estimate that moves by one is the same start.
        start = self._clock.boot_ns() // 1_000_000_000 - listing.uptime_s
        if self._started[0] != listing.master or abs(self._started[1] - start) > 2:  # noqa: PLR2004  (seconds)
            self._started = (listing.master, start)
        return self._started[1]


def _batched(lines: Sequence[str]) -> Iterator[list[str]]:
    """As many lines at once as fit into HAProxy's buffer."""
    some: list[str] = []
    for line in lines:
        if some and sum(map(len, some)) + 2 * len(some) + len(line) > _MAX_QUESTION:
            yield some
            some = []
        some.append(line)
    if some:
        yield some


def _kernel_start(pid: int) -> str:
    """When the process began, as the kernel counts it; empty when the proxy's processes cannot be seen from here."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    except OSError:
        return ""
    return rest.split()[19] if "(haproxy" in name else ""


def _read_config(config: str | os.PathLike[str] | None) -> tuple[str | None, str]:
    """The text, and why there is none."""
    if config is None:
        return None, "no configuration file was given"
    try:
        path = Path(config)
        files = sorted(path.glob("*.cfg")) if path.is_dir() else [path]
        if sum(file.stat().st_size for file in files) > _MAX_CONFIG:
            return None, f"{path} is larger than {_MAX_CONFIG} bytes"
        return "\n".join(file.read_text(errors="replace") for file in files), ""
    except (OSError, ValueError) as error:
        return None, f"{config} cannot be read: {error}"
