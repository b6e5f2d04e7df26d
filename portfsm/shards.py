"""Which shard a node belongs to, when one journal is not enough: several logs, each with a manager of its own.

Rendezvous hashing: every (shard, node) pair has a score, and a node belongs to the shard with the highest. So all controllers agree
without asking anybody, each shard gets about the same number of nodes, and a new shard takes its share evenly from all others,
while no node moves between two old ones. The scores are BLAKE2b's, so they are the same on every platform and for ever.

A node may move only while it holds no port: until then it is pinned to where it was. `docs/scaling.md` has the steps.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from portfsm.errors import InvalidValue
from portfsm.specs import check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["moved_nodes", "shard_of"]


def shard_of(node: str, shards: Iterable[str], *, pinned: Mapping[str, str] | None = None) -> str:
    """The shard that `node` belongs to. The order of `shards` does not matter.

    `shards`: their names, which stay with them for ever (names, not URLs: a URL may change). `pinned`: nodes that stay elsewhere for
    now, by the shard that has them. Raises `InvalidValue` for names that are empty, too long or given twice, and for a pin to no shard.
    """
    node = check_text("node", node)
    names = _names(shards)
    if pinned is not None and node in pinned:
        if pinned[node] not in names:
            message = f"node {node!r} is pinned to {pinned[node]!r}, which is none of {', '.join(names)}: add that shard or remove the pin"
            raise InvalidValue(message, name="pinned", value=pinned[node])
        return pinned[node]
    return max(names, key=lambda shard: (_score(shard, node), shard))


def moved_nodes(nodes: Iterable[str], before: Iterable[str], after: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The nodes that change their shard when the shards do: from which, to which.

    Pin each to the first until it holds no port. Raises `InvalidValue`.
    """
    old, new = _names(before), _names(after)
    places = {node: (shard_of(node, old), shard_of(node, new)) for node in nodes}
    return {node: (here, there) for node, (here, there) in places.items() if here != there}


def _score(shard: str, node: str) -> int:
    """The lengths keep two names apart: "a" + "bc" is not "ab" + "c"."""
    names = [name.encode() for name in (shard, node)]
    text = b"".join(b"%d:%s" % (len(name), name) for name in names)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def _names(shards: Iterable[str]) -> tuple[str, ...]:
    if isinstance(shards, str):
        raise InvalidValue(f"shards are several names, not the one text {shards!r}: give a list", name="shards", value=shards)
    names = tuple(check_text("shard", shard, required=True) for shard in shards)
    if not names:
        raise InvalidValue("there must be at least one shard", name="shards", value=names)
    if len(set(names)) != len(names):
        raise InvalidValue(f"a shard is named twice: {', '.join(names)}", name="shards", value=names)
    return names
