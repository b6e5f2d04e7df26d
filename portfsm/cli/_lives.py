"""One port's life as spans: in which state it was, from when to when, who held it, and what began each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from portfsm.states import EventKind, PortState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portfsm.cli._steps import Step
    from portfsm.events import Event

__all__ = ["Span", "spans"]


@attrs.frozen
class Span:
    """A port in one state, under one lease if it is ALLOCATED."""

    state: PortState
    began: Event
    events: tuple[Event, ...] = ()
    """What happened without ending it: `withdrawn`, `held`."""
    ended: Event | None = None
    """What ended it; None while it lasts."""

    @property
    def owner(self) -> str:
        """Who held the port; empty unless it was ALLOCATED."""
        return self.began.owner if self.state is PortState.ALLOCATED else ""

    @property
    def service(self) -> str:
        """The lease's service."""
        return self.began.service if self.state is PortState.ALLOCATED else ""

    @property
    def token(self) -> int:
        """The lease's token; 0 unless the port was ALLOCATED."""
        return self.began.token if self.state is PortState.ALLOCATED else 0

    def lasted_ns(self, now_ns: int) -> int:
        """How long, or how long so far."""
        return max(0, (self.ended.ts if self.ended else now_ns) - self.began.ts)


def spans(steps: Iterable[Step]) -> list[Span]:
    """The life that the steps of one port make, oldest first."""
    life: list[Span] = []
    for step in steps:
        if step.after is None:
            continue
        if life and _goes_on(step):
            life[-1] = attrs.evolve(life[-1], events=(*life[-1].events, step.event))
            continue
        if life:
            life[-1] = attrs.evolve(life[-1], ended=step.event)
        life.append(Span(step.after, step.event))
    return life


def _goes_on(step: Step) -> bool:
    """Whether the port stays in the state it was in: proxies were told, or a quarantine was lengthened."""
    return step.before is step.after and step.event.kind in (EventKind.WITHDRAWN, EventKind.HELD)
