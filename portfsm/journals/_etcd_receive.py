"""A log that is copied into etcd, and does not open before it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfsm.errors import InvalidValue
from portfsm.journals._copy import prove
from portfsm.journals._etcd_lead import Lead
from portfsm.journals._etcd_tail import Writes
from portfsm.journals._etcd_wire import delete, put

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.journals._copy_source import Source
    from portfsm.journals._etcd_store import Shelf
    from portfsm.values import Head

__all__ = ["receive"]

_PART_BYTES = 512 << 10


def receive(shelf: Shelf, source: Source, lease_s: float) -> Head:
    """Fill an empty log. What an earlier copy left unfinished goes first. Raises `InvalidValue` when there is a log already."""
    shelf.finished = False
    keys = shelf.keys
    lead = Lead(shelf, lease_s)
    lead.acquire("portfsm copy", source.epoch - 1)
    writes = Writes(shelf, lead)
    try:
        if shelf.find(keys.moving) is None and (shelf.names() or shelf.shipped.base):
            raise InvalidValue(f"{shelf.path} holds a log already: choose another NAME", name="target", value=shelf.path)
        writes.change(put(keys.moving, source.shown.encode()))
        writes.clear(keys.files)
        for name, chunks in source.segments():
            _fill(writes, lead, name, chunks)
        head = prove(source, shelf)
        lead.renew()
        writes.change(delete(keys.moving), put(keys.epoch, b"%d" % source.epoch))
    finally:
        lead.release()
        shelf.let_go()
    return head


def _fill(writes: Writes, lead: Lead, name: str, chunks: Iterable[bytes]) -> None:
    offset, part = 0, b""
    for chunk in chunks:
        part += chunk
        if len(part) >= _PART_BYTES:
            writes.append(name, offset, part)
            offset, part = offset + len(part), b""
        if lead.due():
            lead.renew()
    if part:
        writes.append(name, offset, part)
