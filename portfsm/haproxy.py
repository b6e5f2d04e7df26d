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

from portfsm.errors import InvalidValue, ReloadFailed, StaleGeneration
from portfsm.witnesses._haproxy_file import stamp
from portfsm.witnesses._socket import Unanswered, put
from portfsm.witnesses.haproxy import HAProxyWitness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from portfsm.values import Lease

__all__ = ["RELAY_RULE", "reload", "render", "write"]

RELAY_RULE = "use_backend relay if { stopping }"
"""What must be the first `use_backend` of every frontend before `render` is given `relay`."""
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_MAX_ANSWER = 1 << 20


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
    """Reload, and wait until every current worker runs `generation` or a later one. Raises `ReloadFailed`."""
    witness, running = HAProxyWitness(master_socket, proxy="reload"), None
    with anyio.move_on_after(wait_s):
        await _ask_to_reload(str(master_socket), generation, wait_s)
        while running is None or running < generation:
            running = (await witness.check("0.0.0.0", 1, generation)).generation  # noqa: S104  (any port: what counts is who answers)
            await anyio.sleep(0.01)
        return
    raise ReloadFailed(
        f"{master_socket} runs {'no generation it says' if running is None else f'generation {running}'} and not {generation} "
        f"after {wait_s:g} s: try the file with `haproxy -c -f`, and see whether it is the one that the master was started with",
        generation=generation, running=running,
    )  # fmt: skip


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


async def _ask_to_reload(path: str, generation: int, wait_s: float) -> None:
    """HAProxy 2.7 and later answer with the outcome; earlier ones break off, as the master becomes another program."""
    answer = ""
    try:
        await put(path, "show proc", deadline_s=wait_s, max_bytes=_MAX_ANSWER)
        with suppress(Unanswered):
            answer = await put(path, "reload", deadline_s=wait_s, max_bytes=_MAX_ANSWER)
    except Unanswered as error:
        raise ReloadFailed(f"nobody is there to reload: {error}; is HAProxy running with -W -S?", generation=generation) from error
    if answer.startswith("Success=0"):
        log = answer.partition("--")[2].strip()[:2000]
        raise ReloadFailed(f"HAProxy refused the configuration and runs the former one, correct it: {log}", generation=generation)
