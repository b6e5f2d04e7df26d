"""What is told to structlog: every durable event under its own name, and what an operator should know.

Events are told only where structlog was configured: a program that did not ask for them pays nothing. A log
handler that fails fails alone: no port depends on it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.events import Event

__all__ = ["tell", "warn"]

_log = structlog.get_logger("portfsm")


def tell(events: Iterable[Event]) -> None:
    """Each event as `portfsm.<kind>`, its fields as keys, empty ones left out."""
    if structlog.is_configured():
        with suppress(Exception):
            for event in events:
                _log.info(f"portfsm.{event.kind}", **_keys(event))


def warn(name: str, **keys: object) -> None:
    """Something an operator should know, as `portfsm.<name>`."""
    with suppress(Exception):
        _log.warning(f"portfsm.{name}", **keys)


def _keys(event: Event) -> dict[str, object]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "kind"}
    return {name: value for name, value in fields.items() if value not in ("", 0, None)}
