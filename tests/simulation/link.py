"""One machine's way to the server, and what may become of a question on it."""

from __future__ import annotations


class Unanswered(Exception):
    """Nobody knows what became of the question."""


class Link:
    def __init__(self, server):
        self.server, self.life = server, server.life
        self.cut = False
        """Nothing gets through, either way."""
        self.loses = []
        """What becomes of the next question, or the next one of a kind: it is lost, its answer is, or it is late."""
        self.slow_ns = 0
        """How long the next answer takes."""

    def carry(self, word, act, *, connected=True):
        """A question there, and its answer back. `word` says in the story what is asked, `act` is what the server does about it."""
        server = self.server
        due = next((loss for loss in self.loses if loss[1] in (None, word)), None)
        fate = due[0] if due else "answered"
        if due:
            self.loses.remove(due)
            server.world.hits[f"{word}: {fate}"] += 1
        if not connected or server.down or (self.cut and fate == "answered"):
            fate = "question lost"
        if fate == "late":
            server.late.append((word, act))
        if fate in ("question lost", "late"):
            raise Unanswered
        answer = act()
        if self.slow_ns:
            wait_ns, self.slow_ns = self.slow_ns, 0
            server.world.advance_ns(wait_ns)
        if fate == "answer lost":
            raise Unanswered
        return answer


class Faulty:
    """What may be wrong with any server."""

    is_cut = False
    """Which only a disk can be."""

    def __init__(self, world):
        self.world = world
        self.offset_ns = self.furthest_ns = 0
        """How far its clock is from true time, and ever was, ahead."""
        self.down = self.read_only = self.full = False
        self.life = 1
        """Grows with each fail-over, which no connection outlives."""
        self.late = []
        """Questions that are still on their way, though nobody waits for them any more: what they are, and what is done about them."""
        self.tops = {}
        """epoch -> the last event that it added."""
        self.patient = False
        """Leases last: for the end of a story, which leaps over days."""

    @property
    def provoked(self):
        return self.down or self.read_only or self.full

    def mend(self):
        """Nothing is wrong with it from now on."""
        self.down = self.read_only = self.full = False

    def copied(self):
        """Another as it is now."""
        other = type(self)(self.world)
        other.go_back_to(self)
        return other

    def without_power(self, seed):
        """What it has acknowledged, it has."""
        return self

    def step(self, ns):
        """Somebody sets its clock."""
        self.offset_ns += ns
        self.furthest_ns = max(self.furthest_ns, self.offset_ns)

    def now(self):
        return self.world.true_ns + self.offset_ns
