"""How many ports are said to be needed, against a pool of just so many."""

from __future__ import annotations

import math

import pytest

from portfsm._sizing import Workload, churn_for, hold_for
from portfsm.errors import InvalidValue, PoolExhausted


def runs_dry(world, ports, work, *, seconds):
    """Whether starts that come evenly ever find no port: each new replica starts before an old one stops."""
    world.define(ports=range(1000, 1000 + ports), hold_s=work.hold_s)
    living = [world.allocate(f"first {number}") for number in range(work.live)]
    try:
        for number in range(round(work.per_s * seconds)):
            living.append(world.allocate(f"later {number}"))
            world.pass_time(0.001)  # a stop a little after its start, so that no hold ends in the very moment of the next start
            world.release(living.pop(0))
            world.pass_time(1 / work.per_s - 0.001)
    except PoolExhausted:
        return True
    return False


@pytest.mark.parametrize("work", [Workload(10, 2.0, 10.0), Workload(0, 5.0, 4.0), Workload(30, 0.5, 10.0), Workload(5, 1.0, 0.0)])
def test_a_pool_of_the_size_that_was_planned_runs_dry_or_is_larger_than_needed(empty, work):
    assert not runs_dry(empty, work.ports, work, seconds=60)
    if work.ports > work.live + 1:
        assert runs_dry(type(empty)(), work.ports - 1, work, seconds=60)


@pytest.mark.parametrize("mean", [0.5, 1, 3, 10, 100, 750])
def test_a_margin_for_chance_that_is_none(mean):
    """Stops at random: what is held back is Poisson's, and passes what was planned for in less than one moment of two hundred."""
    work = Workload(0, mean, 1.0)
    below = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(work.held_at_random + 1))
    assert 1 - below < 1 / 200
    assert work.ports_at_random == work.held_at_random + 1 >= work.ports


def test_the_way_back_that_leads_elsewhere():
    assert Workload(200, 5.0, 150.0).ports == 951
    assert hold_for(951, 200, 5.0) == 150.0
    assert churn_for(951, 200, 150.0) == 5.0
    assert (hold_for(10, 3, 0.0), churn_for(10, 3, 0.0)) == (math.inf, math.inf)
    assert (hold_for(4, 3, 1.0), churn_for(4, 3, 1.0)) == (0.0, 0.0)
    assert max(hold_for(3, 3, 1.0), churn_for(3, 3, 1.0), hold_for(3, 3, 0.0)) < 0


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("live", "churn", "hold_s") for value in (-1, math.nan, math.inf, "5", None, True, 1e12)] + [("live", 1.5)],
)
def test_a_workload_that_is_none(name, value):
    figures = {"live": 1, "churn": 1.0, "hold_s": 1.0, name: value}
    with pytest.raises(InvalidValue) as caught:
        Workload(figures["live"], figures["churn"], figures["hold_s"])
    assert caught.value.name == name
    assert caught.value.value is value
