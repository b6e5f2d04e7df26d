"""A log in etcd is the files of a log in a directory, byte for byte, each cut into values of one append.

    portfsm/NAME/lead                                       who writes, and its epoch: goes with its lease
    portfsm/NAME/epoch                                      the last epoch, which no lease takes away
    portfsm/NAME/f/00000000000000000001.jsonl/000000000000  a segment from its first byte
    portfsm/NAME/f/00000000000000000001.jsonl/000000000385  ... from byte 385
    portfsm/NAME/f/00000000000000104223.snap.jsonl/000...0  a copy of the state
    portfsm/NAME/shipped                                    where the segments went that are no longer here
    portfsm/NAME/torn/...                                   what was cut off after crashes
    portfsm/NAME/moving                                     a copy into this log is not finished

So whatever reads and proves a directory reads and proves this: `Shelf` shows it as one, older segments in the archive included.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec

from portfsm.errors import JournalCorrupt, JournalUnreadable
from portfsm.journals._disk import CHUNK_BYTES, Directory, RealDisk, unreadable
from portfsm.journals._etcd_wire import Range, end_of
from portfsm.journals._segments import names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portfsm.journals._etcd_client import Client
    from portfsm.journals._etcd_url import Place
    from portfsm.journals._etcd_wire import KeyValue

__all__ = ["VALUE_BYTES", "Keys", "Shelf", "Shipped", "pieces"]

VALUE_BYTES = 1 << 20
"""No value is longer: etcd takes 1.5 MiB a request."""
_FAR = 10**12 - 2
"""Behind every byte."""


class Keys:
    """The names of one log's keys."""

    def __init__(self, name: str) -> None:
        self.all = f"portfsm/{name}/".encode()
        self.lead = self.all + b"lead"
        self.epoch = self.all + b"epoch"
        self.shipped = self.all + b"shipped"
        self.moving = self.all + b"moving"
        self.files = self.all + b"f/"

    def file(self, name: str) -> bytes:
        """What all keys of a file begin with."""
        return self.files + name.encode() + b"/"

    def piece(self, name: str, offset: int) -> bytes:
        """The key of a file's bytes from `offset`."""
        return self.file(name) + b"%012d" % offset

    def torn(self, name: str, offset: int, epoch: int) -> bytes:
        """Where cut bytes are kept."""
        return b"%storn/%s/%012d-%d" % (self.all, name.encode(), offset, epoch)


class Shipped(msgspec.Struct, frozen=True):
    """The segments before the first one here, and where they are."""

    no: int = 1
    """Number of the first segment here."""
    base: int = 0
    """The last `seq` that went."""
    prev: str = ""
    """SHA-256 in the seal of the last segment that went."""
    to: str = ""
    host: str = ""

    @classmethod
    def up_to(cls, no: int, last: int, sha256: str, directory: str) -> Shipped:
        """Segment `no` was the last to go, and ended at `last`."""
        return cls(no + 1, last, sha256, str(Path(directory).absolute()), socket.gethostname())


def pieces(data: bytes) -> list[bytes]:
    """The bytes cut into values of about one length, none of them a mere line end."""
    count = max(1, -(-len(data) // VALUE_BYTES))
    size = -(-len(data) // count)
    return [data[start : start + size] for start in range(0, len(data), size)] or [data]


@attrs.frozen
class _Part:
    offset: int
    data: bytes


class Shelf(Directory):
    """The log as a directory to read from. Nothing is kept between two questions: a writer may be at work in it."""

    def __init__(self, client: Client) -> None:
        super().__init__(RealDisk(), client.place.shown)
        self.client = client
        self.keys = Keys(client.place.name)
        self.archive = Directory(RealDisk(), client.place.archive) if client.place.archive else None
        self.shipped = Shipped()
        self.finished = True
        """Whoever copies into this log sees it before it is whole."""

    @property
    def place(self) -> Place:
        """Which log."""
        return self.client.place

    def hold(self) -> int:
        """There is nothing to hold."""
        raise JournalUnreadable(f"{self.path} is no directory", path=self.path, errno=errno.ENOTDIR)

    def let_go(self) -> None:
        """Close the connection."""
        self.client.close()

    # ---- what a directory is asked ---------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All files, those in the archive that are no longer here included."""
        self.origin = (1, 0, "")
        self._refuse_unfinished(self.find(self.keys.moving))
        kept = self.find(self.keys.shipped)
        self.shipped = msgspec.json.decode(kept.value, type=Shipped) if kept else Shipped()
        here = list(self._here())
        if not here and kept is None and self.finished:
            self._refuse_none()
        older = [name for name in self._archived() if name not in here and int(name[:20]) <= self.shipped.base]
        if not older:
            self.origin = (self.shipped.no, self.shipped.base, self.shipped.prev)
        return sorted([*older, *here])

    def reach(self, after: int) -> None:
        """Raise unless the events behind `after` can be read."""
        if after < self.origin[1]:
            was = self.shipped
            raise JournalUnreadable(
                f"{self.path}: the events up to @{was.base} were shipped to {was.to} on {was.host}: name that directory (or a copy) "
                f"with ?archive=DIR",
                path=self.path, errno=None,
            )  # fmt: skip

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        last = self._last(name, _FAR)
        if last is not None:
            return last.offset + len(last.data)
        return self._shelved(name).size(name)

    def chunks(self, name: str, start: int = 0, stop: int | None = None, size: int = 0) -> Iterator[bytes]:  # noqa: ARG002
        """The bytes of a file from `start` to `stop` (its end). Fetched at once: a segment is a few mebibytes long."""
        if stop is not None and stop <= start:
            return
        first = _Part(0, b"") if start == 0 else self._last(name, start)
        begin = self.keys.piece(name, first.offset if first else 0)
        end = end_of(self.keys.file(name)) if stop is None else self.keys.piece(name, stop)
        kvs = self.range(begin, end)
        if not kvs:
            yield from self._shelved(name).chunks(name, start, stop)
            return
        data = b"".join(pair.value for pair in kvs)
        begun = _part(kvs[0]).offset
        for at in range(max(0, start - begun), len(data) if stop is None else min(len(data), stop - begun), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES if stop is None else min(at + CHUNK_BYTES, stop - begun)]

    # ---- below ---------------------------------------------------------------------------------------------------

    def find(self, key: bytes, *, keys_only: bool = False, patience_s: float | None = None) -> KeyValue | None:
        """One key."""
        return next(iter(self.range(key, keys_only=keys_only, patience_s=patience_s)), None)

    def range(self, key: bytes, end: bytes = b"", *, patience_s: float | None = None, **options: object) -> list[KeyValue]:
        """The keys from `key` to before `end`. No transaction: a full cluster refuses even those that only read."""
        return self.client.ask("kv/range", {"key": key, "range_end": end, **options}, Range, patience_s=patience_s)[0].kvs

    def parts(self, name: str, start: int = 0) -> list[tuple[int, bytes]]:
        """The pieces of a file from `start`, by offset."""
        kvs = self.range(self.keys.piece(name, start), end_of(self.keys.file(name)))
        return [(part.offset, part.data) for part in map(_part, kvs)]

    def _here(self) -> Iterator[str]:
        """The files in etcd, each found behind the keys of the one before."""
        start = self.keys.files
        while True:
            found = self.range(start, end_of(self.keys.files), limit="1", keys_only=True)
            if not found:
                return
            name = found[0].key[len(self.keys.files) :].rpartition(b"/")[0].decode("ascii", "replace")
            yield name
            start = end_of(self.keys.file(name))

    def _archived(self) -> list[str]:
        try:
            return names_in(self.archive) if self.archive is not None else []
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unreadable(self.place.archive, error, "read the archive") from error

    def _shelved(self, name: str) -> Directory:
        if self.archive is None or name not in self._archived():
            raise FileNotFoundError(errno.ENOENT, f"{name} is not there", name)
        return self.archive

    def _last(self, name: str, offset: int) -> _Part | None:
        """The piece that begins last at or before `offset`."""
        end = min(self.keys.piece(name, offset + 1), end_of(self.keys.file(name)))
        kvs = self.range(self.keys.piece(name, 0), end, limit="1", sort_order="DESCEND", sort_target="KEY")
        return _part(kvs[0]) if kvs else None

    def _refuse_none(self) -> None:
        if self.find(self.keys.epoch) is None:
            message = f"{self.path}: this cluster holds no log of that name yet: check NAME, the last part of the URL"
            raise JournalUnreadable(message, path=self.path, errno=None)

    def _refuse_unfinished(self, moving: KeyValue | None) -> None:
        if moving is not None and self.finished:
            raise JournalUnreadable(
                f"{self.path}: a copy into this log was begun and not finished: run `portfsm copy` again, which starts over",
                path=self.path, errno=None,
            )  # fmt: skip


def _part(pair: KeyValue) -> _Part:
    offset = pair.key.rpartition(b"/")[2]
    if not offset.isdigit():
        raise JournalCorrupt(f"the key {pair.key!r} is none of portfsm's: remove it", path=None, segment=None, offset=None, seq=None)
    return _Part(int(offset), pair.value)
