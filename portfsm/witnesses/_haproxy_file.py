"""The file that HAProxy's next reload will read, as far as evidence depends on it: which generation it is of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = ["PortsFile", "stamp"]

_GENERATION = re.compile(r"^\s*setenv\s+GEN\s+(\d{1,18})\s*$", re.MULTILINE)
_MAX_BYTES = 16 << 20


def stamp(text: str) -> int | None:
    """The highest `setenv GEN` in a configuration."""
    return max((int(found) for found in _GENERATION.findall(text)), default=None)


class PortsFile:
    """Reads the stamp of one file; again only once it was replaced."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._seen: tuple[int, ...] = ()
        self._stamp: int | None = None

    def generation(self) -> int | None:
        """The stamp that is there now; None when there is none to be read. Never raises."""
        try:
            stat = self._path.stat()
            seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if seen != self._seen:
                self._stamp = stamp(self._path.read_text(errors="replace")) if stat.st_size <= _MAX_BYTES else None
                self._seen = seen
        except (OSError, ValueError):
            self._seen, self._stamp = (), None
        return self._stamp
