"""For a controller that writes HAProxy's configuration itself: render from live leases, write, reload.

A verdict of CLEAR stays true only while no configuration from before the release comes back. So each one is stamped with the
`seq` of the log that it was rendered from, and a file is never replaced by one with a lower stamp.

The file is read beside the controller's own (`haproxy -f own.cfg -f ports.cfg`). One process writes it.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from portfsm.errors import InvalidValue, ReloadFailed, StaleGeneration
from portfsm.witnesses._haproxy_answers import Unreadable, read_listing
from portfsm.witnesses._haproxy_file import stamp
from portfsm.witnesses._socket import Unanswered, put
from portfsm.witnesses.haproxy import HAProxyWitness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from portfsm.values import Lease
    from portfsm.witnesses._haproxy_answers import Listing

__all__ = ["RELAY_RULE", "reload", "render", "write"]

RELAY_RULE = "use_backend relay if { stopping }"
"""What must be the first `use_backend` of every frontend before `render` is given `relay`."""
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_MAX_ANSWER = 1 << 20
_PAUSE_S = 0.01
_UNDER_WAY = "Another reload is still in progress"


def render(
    leases: Iterable[Lease],
    *,
    generation: int,
    services: Iterable[str] = (),
    relay: str | None = None,
    host_of: Callable[[str], str] = lambda node: node or "127.0.0.1",
    lines: Sequence[str] = ("option redispatch 1",),
) -> str:
    """A backend per service with a server per lease. `generation` is `manager.seq`, read *before* the leases.

    `relay` is the proxy's own front door ("127.0.0.1:80"): give it once every frontend has `RELAY_RULE`. `host_of` turns a
    node into the host that the proxy knows; `services` have a backend also without leases; `lines` go into every one.
    Raises `InvalidValue`.
    """
    if type(generation) is not int or generation < 0:
        raise InvalidValue(f"a generation is a seq of the log, not {generation!r}: give manager.seq", name="generation", value=generation)
    backends: dict[str, list[str]] = {_named(service): [] for service in services}
    for lease in sorted(leases, key=lambda lease: (lease.service or lease.pool, lease.node, lease.port)):
        address = _address(host_of(lease.node), lease.port)
        servers = backends.setdefault(_named(lease.service or lease.pool), [])
        name = f"{lease.node or 'p'}-{lease.port}"
        servers.append(f"server {_named(name)} {address}")
    relays = int(relay is not None)
    text = _section("global", [f"setenv GEN {generation}", f"setenv RELAY {relays}", f"description GEN={generation} RELAY={relays}"])
    text += _section("backend relay", [f"server self {relay}"]) if relay else ""
    return text + "".join(_section(f"backend {name}", [*lines, *servers]) for name, servers in backends.items())


def write(path: str | os.PathLike[str], text: str) -> None:
    """Replace the file in one step, durably. Raises `StaleGeneration` when it has a newer stamp, `InvalidValue`, `OSError`."""
    path = Path(path)
    generation, current = stamp(text), None
    if generation is None:
        raise InvalidValue("the configuration has no `setenv GEN`: make it with render()", name="text", value=text[:200])
    if path.exists():
        current = stamp(path.read_text(errors="replace"))
    if current is not None and generation < current:
        raise StaleGeneration(
            f"{path} is of generation {current} and must not go back to {generation}: render it again from the log as it is now",
            path=str(path), generation=generation, current=current,
        )  # fmt: skip
    _replace(path, text)


async def reload(master_socket: str | os.PathLike[str], *, generation: int, wait_s: float = 10.0) -> None:
    """Reload, and wait until every current worker runs `generation` or a later one. Raises `ReloadFailed`.

    A master that is just starting, or in another reload, is waited for: `wait_s` seconds are for all of it.
    """
    reloading = _Reloading(str(master_socket), generation, wait_s)
    with anyio.move_on_after(wait_s):
        await reloading.run()
        return
    raise reloading.failure()


# ---------------------------------------------------------------------- the parts


def _section(head: str, lines: Iterable[str]) -> str:
    return "".join([f"{head}\n", *(f"    {line}\n" for line in lines), "\n"])


def _named(name: str) -> str:
    if not _NAME.fullmatch(name) or name == "relay":
        raise InvalidValue(f"HAProxy takes letters, digits and -_.: in a name, not {name!r}: choose another", name="service", value=name)
    return name


def _address(host: str, port: int) -> str:
    if not _NAME.fullmatch(host):
        raise InvalidValue(f"a host is an address or a name, not {host!r}: correct host_of", name="host_of", value=host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@attrs.define
class _Reloading:
    """One call of `reload`."""

    path: str
    generation: int
    wait_s: float
    running: int | None = None
    silence: str = "it did not answer"
    """Why nobody could be asked; empty once somebody was."""

    async def run(self) -> None:
        """Until `generation` runs. A request that was lost, as the master became another program, is made again."""
        done = False
        while not done:
            before = await self._listing()
            answer = await self._ask()
            await anyio.sleep(_PAUSE_S)
            after = await self._listing()
            done = bool(answer) or after.reloads != before.reloads
            if done and after.failed:
                raise self._refused("it does not say why here, `haproxy -c -f` does")
        witness = HAProxyWitness(self.path, proxy="reload")
        while self.running is None or self.running < self.generation:
            self.running = (await witness.check("0.0.0.0", 1, self.generation)).generation  # noqa: S104  (any port: who answers counts)
            await anyio.sleep(_PAUSE_S)

    async def _listing(self) -> Listing:
        """What the master shows as soon as it has a worker: before, it could take a reload for a failed start."""
        while True:
            try:
                listing = read_listing(await put(self.path, "show proc", deadline_s=self.wait_s, max_bytes=_MAX_ANSWER))
                if listing.workers:
                    self.silence = ""
                    return listing
            except (Unanswered, Unreadable) as error:
                self.silence = self.silence and str(error)
            await anyio.sleep(_PAUSE_S)

    async def _ask(self) -> str:
        """HAProxy 2.7 and later answer with the outcome; earlier ones break off. Nothing while another reload is under way."""
        answer = ""
        with suppress(Unanswered):
            answer = await put(self.path, "reload", deadline_s=self.wait_s, max_bytes=_MAX_ANSWER)
        if _UNDER_WAY in answer:  # 3.1 and later say so, and do nothing
            return ""
        if answer.startswith("Success=0"):
            raise self._refused(answer.partition("--")[2].strip()[:2000])
        return answer

    def _refused(self, why: str) -> ReloadFailed:
        return ReloadFailed(f"HAProxy refused the configuration and runs the former one, correct it: {why}", generation=self.generation)

    def failure(self) -> ReloadFailed:
        """Time is up."""
        if self.silence:
            why = f"nobody is there to reload after {self.wait_s:g} s: {self.silence}; is HAProxy running with -W -S?"
            return ReloadFailed(why, generation=self.generation)
        runs = "no generation it says" if self.running is None else f"generation {self.running}"
        why = (
            f"{self.path} runs {runs} and not {self.generation} after {self.wait_s:g} s: try the file with `haproxy -c -f`, "
            "and see whether it is the one that the master was started with"
        )
        return ReloadFailed(why, generation=self.generation, running=self.running)
