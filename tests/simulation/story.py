"""One seed from beginning to end; and when it fails, a shorter story that fails the same way, in words.

Rule: a story is a function of its plan and its steps. Shortening leaves steps out and never invents one.
"""

from __future__ import annotations

import random
import traceback

from portfsm.errors import PortfsmError
from portfsm.testing.simulation import run

from .epilogue import epilogue
from .fleet import Fleet
from .observer import Observer
from .plan import Plan
from .shared import SharedWorld
from .steps import Steps
from .turmoil import SharedPlan, Turmoil
from .world import Violation, World, sealed

PROBE_EVERY = 12
TOLD = 30


class SimulatedWorld(Steps, Fleet, Observer, World):
    """All parts of the world together."""


class SimulatedSharedWorld(Turmoil, Fleet, Observer, SharedWorld):
    """The same where the log is shared."""


class Outcome:
    """What a story came to."""

    def __init__(self, seed, world, failure, steps):
        self.seed, self.failure, self.steps = seed, failure, steps
        self.hits, self.routed, self.story, self.count = world.hits, world.routed, world.story, len(world.record.events)

    @property
    def name(self):
        return getattr(self.failure, "name", type(self.failure).__name__)


def tell(seed, steps=200, *, strict=False, shared=False):
    """Run one seed. `steps` is a number, or the steps themselves."""
    plan, kind = (SharedPlan(seed), SimulatedSharedWorld) if shared else (Plan(seed), SimulatedWorld)
    todo = plan.steps(steps) if isinstance(steps, int) else steps
    world = kind(plan, random.Random(f"turns {seed}"), strict=strict)
    failure = None
    with sealed(world):
        try:
            run(_to_the_end(world, todo))
        except Violation as violation:
            failure = violation
        except (Exception, PortfsmError) as error:  # the library or the simulation broke, which is a finding too
            failure = error
            world.say("".join(traceback.format_exception(error)[-3:]))
    return Outcome(seed, world, failure, todo)


async def _course(world, todo):
    for number, step in enumerate(todo):
        chance = random.Random(step.seed)
        world.chance = chance
        await getattr(world, step.kind)(chance)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            await world.turn()
        world.audit()
        if number % PROBE_EVERY == 0:
            world.probe(step.seed)
        world.check()
    await epilogue(world)


async def _to_the_end(world, todo):
    try:
        await _course(world, todo)
    finally:
        world.over = True


def shorten(outcome, *, tries=400, **how):
    """Leave out steps, halves first, as long as the same promise is broken."""
    best, size = outcome, max(1, len(outcome.steps) // 2)
    while size and tries:
        start = 0
        while start < len(best.steps) and tries:
            tries -= 1
            found = tell(best.seed, best.steps[:start] + best.steps[start + size :], **how)
            if found.failure is not None and found.name == best.name:
                best = found
            else:
                start += size
        size //= 2
    return best


def report(outcome, command):
    """A failing seed for people: how to see it again, and the end of the story."""
    told = outcome.story[-TOLD:] if len(outcome.story) > TOLD else outcome.story
    head = [
        f"seed {outcome.seed}: {outcome.failure}",
        f"again: {command}",
        f"{len(outcome.steps)} steps are enough; the last {len(told)} lines:",
    ]
    return "\n".join([*head, *told])
