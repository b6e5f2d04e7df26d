"""The page put together: one file, nothing of it from elsewhere.

Names in a log are anybody's. They reach the page as JSON in which no `<` is left, and its script only ever writes them as text. The
policy in its head forbids every request, and every script and style but the two whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import html
import zlib
from importlib import resources
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from portfsm.audit.report._data import Omitted, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm.audit.report._collect import Found

__all__ = ["LIMIT_BYTES", "Facts", "Omitted", "page"]

LIMIT_BYTES: Final = 5_000_000
"""A page stays below this: it is sent by mail and opened on phones."""
_PLAIN_BYTES: Final = 400_000
"""Up to this many bytes the data stand in the page as they are, for people and their tools to read; above it, deflated."""
_BUDGET: Final = 360_000
"""Pieces of lives that are tried at first: as many as fit with names of some twenty characters."""
_TRIES: Final = 8
_CLOSER: Final = 0.9
"""By how much more than its size says the next try is made smaller."""
_SCRIPTS: Final = ("decode", "format", "lives", "time", "occupancy", "map", "port", "search", "findings", "main")


@attrs.frozen
class Facts:
    """What the page says of the log beyond its events."""

    title: str
    """Where the log is, as the reader knows it."""
    made_ns: int = 0
    """When the page was made, UTC ns."""
    made_by: str = "portfsm"
    asked: tuple[str, ...] = ()
    """To which pools and nodes the page was limited."""
    checks: tuple[tuple[str, str, str], ...] = ()
    """Mark (`ok`, `FAIL`, `note`, `-`), what was checked, what was found."""
    passed: bool | None = None
    """Whether the log is what was written; None when it was not checked."""
    verdict: str = ""
    """The same in a sentence, with what to do next."""
    head: str = ""
    """Of the last event that the page tells of."""


def page(
    found: Found, facts: Facts, *, limit_bytes: int = LIMIT_BYTES, clean: Callable[[str], str] = lambda text: text
) -> tuple[bytes, Omitted]:
    """The page in UTF-8, and what had to be left out so that it stays below `limit_bytes`.

    `clean` makes texts from the log harmless to look at: what is neither visible nor a space may turn lines around or hide them.
    """
    shown = attrs.asdict(facts) | {"title": clean(facts.title)}
    report = Report(found, clean=clean)
    frame = _Frame(clean(facts.title))
    budget = min(_BUDGET, report.spans)
    for tries_left in reversed(range(_TRIES)):
        data, omitted = report.drawn(budget)
        written = frame.around(msgspec.json.encode({"facts": shown, **data}))
        if len(written) < limit_bytes or not tries_left:
            return written, omitted
        budget = int(min(budget, len(data["lives"]["time"])) * _CLOSER * limit_bytes / len(written))
    raise AssertionError("the last try returns")


class _Frame:
    """Everything of the page but its data."""

    def __init__(self, title: str) -> None:
        read = {file.name: file.read_text(encoding="utf-8") for file in (resources.files("portfsm.audit.report") / "web").iterdir()}
        style = read["page.css"]
        script = "\n".join(['(() => {\n"use strict";', *(read[f"{name}.js"] for name in _SCRIPTS), "})();\n"])
        policy = (
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
        )
        parts = {"policy": policy, "title": html.escape(title), "style": style, "script": script}
        self._before, self._after = (_filled(half, parts) for half in read["page.html"].split("%%data%%"))

    def around(self, data: bytes) -> bytes:
        """The whole page."""
        return f'{self._before}<script id="data" {_embedded(data)}</script>{self._after}'.encode()


def _filled(template: str, parts: dict[str, str]) -> str:
    """The template with its parts, in one go: what was put in is not looked at again."""
    return "".join(parts[piece] if odd % 2 else piece for odd, piece in enumerate(template.split("%%")))


def _embedded(data: bytes) -> str:
    """The data's type and text, closed to everything that HTML could take for its own."""
    if len(data) > _PLAIN_BYTES:
        return f'type="application/zlib;base64">{base64.b64encode(zlib.compress(data, 6)).decode()}'
    text = data.decode()
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return f'type="application/json">{text}'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
