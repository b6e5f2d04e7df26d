"""The record against what lives: the mutants of it."""

from __future__ import annotations

from .mutant import Mutant

RECONCILE = ("tests/test_reconcile.py", "tests/test_sightings.py")
RECONCILE_MANAGER = "tests/test_reconcile_manager.py"

MUTANTS = [
    # ---- reconcile
    Mutant(
        "reconcile: a lease begun in the look counts",
        "_reconcile.py",
        "if pool.since[offset] < self.started and",
        "if pool.since[offset] <= self.started and",
        RECONCILE,
    ),
    Mutant(
        "reconcile: two looks a second apart count twice",
        "_reconcile.py",
        "started >= last_ns + grace_ns",
        "started >= last_ns",
        RECONCILE,
    ),
    Mutant(
        "reconcile: a moved owner's lease is a leak",
        "_reconcile.py",
        " and not self._lives(pool, pool.owner[offset])\n",
        "\n",
        RECONCILE,
    ),
    Mutant(
        "reconcile: a count is not reset by a sighting",
        "_reconcile.py",
        " and not scene.is_seen(each.lease)}",
        "}",
        RECONCILE,
    ),
    Mutant(
        "reconcile: a count outlives its lease",
        "_reconcile.py",
        "if scene.stands(each.lease) and not scene",
        "if not scene",
        RECONCILE,
    ),
    Mutant(
        "reconcile: an old look counts again",
        "_reconcile.py",
        "if self.started > begun.get(node, 0)}",
        "}",
        RECONCILE,
    ),
    Mutant(
        "reconcile: nodes not named are empty",
        "_reconcile.py",
        "self.newer.intersection(observation.nodes) if",
        "{node for node, _ in ledger.pools} if",
        RECONCILE,
    ),
    Mutant(
        "reconcile: incomplete looks count",
        "_reconcile.py",
        " if observation.complete else set()",
        "",
        RECONCILE,
    ),
    Mutant(
        "reconcile: the breaker sees one look alone",
        "_reconcile.py",
        "Counter(suspect.lease.pool for suspect in suspects.values())",
        "Counter(lease.pool for lease in leaked)",
        RECONCILE,
    ),
    Mutant(
        "reconcile: counts go on under the breaker",
        "_reconcile.py",
        "each._replace(absences=0) if each.lease.pool in breaker else each",
        "each",
        RECONCILE,
    ),
    Mutant(
        "reconcile: all at once",
        "_reconcile.py",
        "max(1, leases[lease.pool] // SHARE)",
        "leases[lease.pool]",
        RECONCILE,
    ),
    Mutant(
        "reconcile: rows that changed are judged",
        "_reconcile.py",
        "return offset >= 0 and pool.since[offset] >= self.started",
        "return False",
        RECONCILE,
    ),
    Mutant(
        "reconcile: a blocked port is unknown",
        "_reconcile.py",
        "if pool.code(port) == BLOCKED:",
        "if pool.code(port) < 0:",
        RECONCILE,
    ),
    Mutant(
        "reconcile: a second port of an owner is unknown",
        "_reconcile.py",
        "        if not others:\n",
        "        if others is not None:\n",
        RECONCILE,
    ),
    Mutant(
        "reconcile: looks from before the opening count",
        "_reconcile.py",
        "if ledger.opened and started < ledger",
        "if ledger.opened and 0 > ledger",
        RECONCILE,
    ),
    Mutant(
        "reconcile: not asked again before a release",
        "_reconciler.py",
        "not self._census.is_due(lease.token) or ",
        "",
        (RECONCILE_MANAGER,),
    ),
    Mutant(
        "reconcile: an answer is no sighting",
        "_reconciler.py",
        "            self._census.saw(lease.token)\n",
        "            pass\n",
        (RECONCILE_MANAGER,),
    ),
    Mutant(
        "reconcile: a dry run counts",
        "_reconciler.py",
        "        if dry_run:\n",
        "        if dry_run:\n            self._census.take(plan)\n",
        (RECONCILE_MANAGER,),
    ),
    Mutant(
        "reconcile: reported before it is durable",
        "_reconciler.py",
        "        await engine.settle()\n",
        "",
        (RECONCILE_MANAGER,),
    ),
]
