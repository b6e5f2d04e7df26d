"""Copies of the state beside the log, so that opening need not replay everything.

A snapshot is a cache: it is never believed when anything about it is odd, never mended, and losing it costs
time alone. File `%020d.snap.jsonl`, named by its `seq`; the first line describes and proves the others.

The newest two are for opening. Older ones stay for questions about the past (`_near`), spread evenly over the log, as long as
all of them together take no more than a tenth of what the log itself takes; a full disk has them removed.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.journals._disk import Directory

__all__ = ["give_up_older", "load", "name_of", "read", "remove_newer", "render", "save", "seqs_in"]

SCHEMA = 1
"""Snapshots of another schema are ignored, never converted."""
_KIND = "snapshot"
_NEWEST = 2
_SHARE = 10
"""Older ones take at most one byte for so many bytes of the log."""
_MOST = 256
"""There are no more older ones than this, however small they are."""
_NAME = re.compile(r"([0-9]{20})\.snap\.jsonl")
_SEGMENT = re.compile(r"[0-9]{20}\.jsonl")
_CHUNK_BYTES = 1 << 20
_log = structlog.get_logger()


class _First(msgspec.Struct):
    kind: str
    schema: int
    log: str
    seq: int
    lines: int
    sha256: str
    """Of all bytes after this line."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_First).decode


def name_of(seq: int) -> str:
    """The file name of the snapshot as of `seq`."""
    return f"{seq:020d}.snap.jsonl"


def seqs_in(directory: Directory) -> list[int]:
    """What snapshots there are, by `seq`, oldest first."""
    return _seqs(directory.names())


def save(directory: Directory, log_id: str, seq: int, lines: Iterable[bytes]) -> None:
    """Keep a snapshot, and of those before it what there is room for. Raises `OSError`."""
    directory.publish(name_of(seq), render(log_id, seq, lines))
    with suppress(OSError):  # the snapshot is kept, and the next one thins out as well
        _thin_out(directory)


def render(log_id: str, seq: int, lines: Iterable[bytes]) -> list[bytes]:
    """The bytes of a snapshot. Lines may bring their end."""
    kept = [line.removesuffix(b"\n") for line in lines]
    body = b"".join(line + b"\n" for line in kept)
    first = _First(_KIND, SCHEMA, log_id, seq, len(kept), hashlib.sha256(body).hexdigest())
    return [_encode(first) + b"\n", body]


def _thin_out(directory: Directory) -> None:
    """Remove older snapshots until the rest have room; each time the one that leaves the smallest gap."""
    names = directory.names()
    seqs = _seqs(names)
    older = seqs[:-_NEWEST]
    size_of = {seq: directory.size(name_of(seq)) for seq in older}
    room = sum(directory.size(name) for name in names if _SEGMENT.fullmatch(name)) // _SHARE
    while older and (len(older) > _MOST or sum(map(size_of.__getitem__, older)) > room):
        around = [0, *older, seqs[-_NEWEST]]
        gaps = [after - before for before, after in zip(around, around[2:], strict=False)]
        directory.remove(name_of(older.pop(gaps.index(min(gaps)))))


def give_up_older(directory: Directory) -> bool:
    """On a full disk: remove all but the newest two, which opening needs. Tells whether there were any."""
    older = []
    with suppress(OSError):
        older = seqs_in(directory)[:-_NEWEST]
    return sum(directory.remove(name_of(seq)) for seq in older) > 0


def _seqs(names: Iterable[str]) -> list[int]:
    return [int(match[1]) for match in map(_NAME.fullmatch, names) if match]


def load(directory: Directory, log_id: str, last_seq: int) -> tuple[int, list[bytes]] | None:
    """The newest snapshot that is intact, of this log, and no newer than it; else None."""
    for seq in reversed(seqs_in(directory)):
        try:
            lines = read(directory, log_id, seq, last_seq)
        except (ValueError, OSError) as error:
            _log.warning(
                "snapshot.ignored", path=directory.at(name_of(seq)), why=str(error), effect="an older one, or more of the log, is read"
            )
        else:
            return seq, lines
    return None


def read(directory: Directory, log_id: str, seq: int, last_seq: int) -> list[bytes]:
    """One snapshot's lines. Raises `ValueError` when anything about it is odd, `OSError`."""
    if seq > last_seq:
        raise ValueError(f"it is newer than the log, which ends at {last_seq}")
    raw = b"".join(directory.chunks(name_of(seq), size=_CHUNK_BYTES))
    end = raw.find(b"\n") + 1
    first = _decode(raw[:end])
    if (first.kind, first.schema, first.log, first.seq) != (_KIND, SCHEMA, log_id, seq):
        raise ValueError(f"it is a {first.kind} of schema {first.schema}, log {first.log}, seq {first.seq}")
    body = raw[end:]
    lines = body.split(b"\n")[:-1]
    if (hashlib.sha256(body).hexdigest(), len(lines)) != (first.sha256, first.lines):
        raise ValueError("it is damaged")
    return lines


def remove_newer(directory: Directory, last_seq: int) -> None:
    """Remove snapshots of a history that was cut off: once the log has grown past them they would look right."""
    for seq in seqs_in(directory):
        if seq > last_seq:
            directory.disk.unlink(directory.at(name_of(seq)))
