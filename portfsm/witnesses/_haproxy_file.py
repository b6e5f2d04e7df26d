"""The files that HAProxy's next reload will read, as far as evidence depends on them: their generation, and what they bring back."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from portfsm.witnesses._haproxy_answers import Slot, Unreadable, table_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ConfigFile", "PortsFile", "StateFile", "stamp"]

_GENERATION = re.compile(r"^\s*setenv\s+GEN\s+(\d{1,18})\s*$", re.MULTILINE)
_MAX_BYTES = 16 << 20


def stamp(text: str) -> int | None:
    """The highest `setenv GEN` in a configuration."""
    return max((int(found) for found in _GENERATION.findall(text)), default=None)


class _Watched(ABC):
    """A file, read again only once it was replaced."""

    pattern = ""
    """Where the path may be a directory: which files of it count."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._seen: list[tuple[str | int, ...]] | None = None

    def _refresh(self) -> None:
        """Raises `OSError`, `ValueError`."""
        files = sorted(self._path.glob(self.pattern)) if self.pattern and self._path.is_dir() else [self._path]
        seen: list[tuple[str | int, ...]] = []
        for file in files:
            stat = file.stat()
            seen.append((file.name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
            if stat.st_size > _MAX_BYTES:
                raise ValueError(f"{file} is larger than {_MAX_BYTES} bytes")
        if seen != self._seen:
            self._read([file.read_text(errors="replace") for file in files])
            self._seen = seen

    @abstractmethod
    def _read(self, texts: Sequence[str]) -> None: ...


class PortsFile(_Watched):
    """Knows the stamp of one file."""

    _stamp: int | None = None

    def generation(self) -> int | None:
        """The stamp that is there now; None when there is none to be read. Never raises."""
        try:
            self._refresh()
        except (OSError, ValueError):
            self._seen = self._stamp = None
        return self._stamp

    def _read(self, texts: Sequence[str]) -> None:
        self._stamp = max((found for text in texts if (found := stamp(text)) is not None), default=None)


class StateFile(_Watched):
    """Knows the slots of a server state file, which a reload puts where that says; in the format of `show servers state`."""

    pattern = "*"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._slots: dict[int, list[Slot]] = {}

    def slots(self) -> Mapping[int, Sequence[Slot]] | str:
        """The slots by port, or why they cannot be known. A file that is not there brings nothing back. Never raises."""
        try:
            self._refresh()
        except FileNotFoundError:
            self._seen = None
            return {}
        except (OSError, ValueError, Unreadable) as error:
            self._seen = None
            return f"the state file {self._path} cannot be read: {error}"
        return self._slots

    def _read(self, texts: Sequence[str]) -> None:
        self._slots = {}
        for slot in (slot for text in texts if text.strip() for slot in table_of(text.rstrip())):
            self._slots.setdefault(slot.port, []).append(slot)


class ConfigFile(_Watched):
    """Knows why no evidence counts with a configuration: a file, or a directory of `*.cfg`."""

    pattern = "*.cfg"

    def __init__(self, path: str | os.PathLike[str], void: Callable[[str], str]) -> None:
        """`void` says it of a text."""
        super().__init__(path)
        self._why, self._void = "", void

    def trouble(self) -> str:
        """Empty when there is nothing against it. Never raises."""
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            self._seen = None
            return f"the configuration {self._path} cannot be read: {error}"
        return f"in {self._path} there is `{self._why}" if self._why else ""

    def _read(self, texts: Sequence[str]) -> None:
        self._why = self._void("\n".join(texts))
