"""How many ports a workload needs, and what fits a number of ports: arithmetic over figures, with the words for it.

Rule: Little's law, nothing else. What is quarantined at any moment is how many stop per second times how long each is held.
"""

from __future__ import annotations

import math

import attrs

from portfsm._forecast import held_in_flight
from portfsm.errors import InvalidValue
from portfsm.specs import check_seconds

__all__ = ["Workload", "check_rate", "churn_for", "hold_for"]

_SIGMAS = 3
"""Stops at random are Poisson's: so many standard deviations above their mean are passed by less than one moment in two hundred."""

_MOST_PER_S = 1e6


def check_rate(value: object) -> float:
    """Return `value` if it is a usable number of stops per second, else raise `InvalidValue`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_PER_S:
        raise InvalidValue(
            f"churn must be a number of stops per second from 0 to {_MOST_PER_S:.0f}, not {value!r}", name="churn", value=value
        )
    return float(value)


def _check_count(value: object, *, name: str) -> int:
    if type(value) is not int or not 0 <= value <= 10**9:
        raise InvalidValue(f"{name} must be a whole number from 0 to {10**9}, not {value!r}", name=name, value=value)
    return value


@attrs.frozen
class Workload:
    """Replicas that live at once on one node, how many of them stop (and start anew) per second, and the hold of their ports."""

    live: int
    per_s: float
    hold_s: float

    def __attrs_post_init__(self) -> None:
        _check_count(self.live, name="live")
        check_rate(self.per_s)
        check_seconds("hold_s", self.hold_s)

    @property
    def held(self) -> int:
        """Ports quarantined at any moment when stops come evenly."""
        return held_in_flight(self.per_s, self.hold_s)

    @property
    def held_at_random(self) -> int:
        """Ports quarantined at all but one moment in some hundreds, when stops come at random."""
        mean = self.per_s * self.hold_s
        return math.ceil(round(mean + _SIGMAS * math.sqrt(mean), 9))

    @property
    def ports(self) -> int:
        """Ports needed when stops come evenly: those that live, those held, and one to give."""
        return self.live + self.held + 1

    @property
    def ports_at_random(self) -> int:
        """Ports needed when stops come at random."""
        return self.live + self.held_at_random + 1


def hold_for(ports: int, live: int, per_s: float) -> float:
    """The longest hold in seconds that `ports` bear at so many stops per second; `inf` without stops, negative when none fits."""
    spare = _check_count(ports, name="ports") - _check_count(live, name="live") - 1
    if spare < 0:
        return -1.0
    return spare / check_rate(per_s) if per_s else math.inf


def churn_for(ports: int, live: int, hold_s: float) -> float:
    """The most stops per second that `ports` bear under a hold; `inf` without a hold, negative when not even none."""
    spare = _check_count(ports, name="ports") - _check_count(live, name="live") - 1
    if spare < 0:
        return -1.0
    return spare / check_seconds("hold_s", hold_s) if hold_s else math.inf
