"""Many seeds, over several processes, and what they came to together."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .broken import broken
from .story import report, shorten, tell


class Sum:
    """What a range of seeds came to."""

    def __init__(self):
        self.seeds = self.events = self.routed = 0
        self.hits, self.failures, self.seconds = Counter(), [], 0.0

    def add(self, part):
        seeds, events, routed, hits, failures = part
        self.seeds, self.events, self.routed = self.seeds + seeds, self.events + events, self.routed + routed
        self.hits += hits
        self.failures += failures

    def figures(self, steps):
        rate = self.seeds / self.seconds
        return (
            f"{self.seeds} seeds of {steps} steps in {self.seconds:.1f} s ({rate:.1f} seeds/s, {rate * steps:.0f} steps/s): "
            f"{self.events} events, {self.routed} requests routed, {len(self.failures)} failures"
        )


def some(first, count, steps, how, name):
    """One process's share: plain values, that they can be sent back."""
    events = routed = 0
    hits, failures = Counter(), []
    with broken(name):
        for seed in range(first, first + count):
            outcome = tell(seed, steps, **how)
            hits += outcome.hits
            events += outcome.count
            routed += outcome.routed
            if outcome.failure is not None:
                failures.append((seed, outcome.name, str(outcome.failure)))
    return count, events, routed, hits, failures


def many(first, count, steps, *, name="", processes=None, chunk=25, enough=None, **how):
    """Run seeds `first` to `first + count - 1`; stop early once `enough` of them failed."""
    total, started = Sum(), time.monotonic()
    processes = processes or os.cpu_count() or 1
    shares = [(at, min(chunk, first + count - at), steps, how, name) for at in range(first, first + count, chunk)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(some, *share) for share in shares]
        for future in running:
            total.add(future.result())
            if enough and len(total.failures) >= enough:
                pool.shutdown(cancel_futures=True)
                break
    total.seconds = time.monotonic() - started
    return total


def explain(seed, steps, *, name="", short=True, **how):
    """The story of a failing seed, for people."""
    with broken(name):
        outcome = tell(seed, steps, **how)
        if outcome.failure is not None and short:
            outcome = shorten(outcome, **how)
    options = "".join(f" --{word}" for word, wanted in how.items() if wanted) + (f" --broken {name}" if name else "")
    return report(outcome, f"python -m tests.simulation --seed {seed} --steps {steps}{options}")
