"""What a simulated disk is made of: files whose sectors, and directories whose entries, are on the platter or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import random

__all__ = ["SECTOR", "Entries", "File"]

SECTOR = 512


@attrs.define
class File:
    """One inode: what programs see, what the platter has, and which sectors differ for all the kernel knows."""

    inode: int
    cache: bytearray = attrs.field(factory=bytearray)
    platter: bytearray = attrs.field(factory=bytearray)
    dirty: set[int] = attrs.field(factory=set)

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
        self.cache[offset:end] = data
        self.dirty.update(range(offset // SECTOR, (end + SECTOR - 1) // SECTOR))

    def resize(self, size: int) -> None:
        if size < len(self.cache):
            del self.cache[size:]
        else:
            self.cache.extend(bytes(size - len(self.cache)))
        self.dirty.add(size // SECTOR)

    def sync(self) -> None:
        self.platter[len(self.cache) :] = bytes(max(0, len(self.cache) - len(self.platter)))
        for sector in self.dirty:
            place = slice(sector * SECTOR, (sector + 1) * SECTOR)
            self.platter[place] = self.cache[place]
        self.dirty.clear()

    def after_power_cut(self, chance: random.Random) -> bytearray:
        shorter, longer = sorted((len(self.platter), len(self.cache)))
        size = chance.choice((shorter, longer, chance.randint(shorter, longer))) if self.dirty or shorter != longer else longer
        found = bytearray(self.platter[:size].ljust(size, b"\0"))
        for sector in sorted(self.dirty):
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, size)
            fate = chance.random()
            if start >= end or fate < 0.25:
                continue
            # Only the bytes that were being written can go bad; what a sector held before is assumed power-safe.
            kept = next((n for n in range(start, end) if self.cache[n : n + 1] != self.platter[n : n + 1]), end)
            found[kept:end] = _fate(bytes(self.cache[kept:end]), end - kept, fate, chance)
        return found


def _fate(new: bytes, size: int, fate: float, chance: random.Random) -> bytes:
    """What became of bytes on their way to the platter: there, zeros, or garbage."""
    if fate < 0.6:
        return new.ljust(size, b"\0")
    return bytes(size) if fate < 0.8 else chance.randbytes(size)


@attrs.define
class Entries:
    """One directory: its names as programs see them, as the platter has them, and the steps between."""

    now: dict[str, int] = attrs.field(factory=dict)
    platter: dict[str, int] = attrs.field(factory=dict)
    unsynced: list[tuple[str, str, int]] = attrs.field(factory=list)
    """(name that goes or "", name that comes or "", inode)."""

    def step(self, gone: str, come: str, inode: int) -> None:
        self.unsynced.append((gone, come, inode))
        _apply(self.now, gone, come, inode)

    def sync(self) -> None:
        self.platter = dict(self.now)
        self.unsynced.clear()

    def after_power_cut(self, chance: random.Random) -> dict[str, int]:
        found = dict(self.platter)
        in_order = chance.random() < 0.5
        kept = (
            self.unsynced[: chance.randint(0, len(self.unsynced))]
            if in_order
            else [step for step in self.unsynced if chance.random() < 0.5]
        )
        for step in kept:
            _apply(found, *step)
        return found


def _apply(entries: dict[str, int], gone: str, come: str, inode: int) -> None:
    entries.pop(gone, None)
    if come:
        entries[come] = inode
