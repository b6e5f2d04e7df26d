"""The mutants: one replacement of text each, and the tests expected to notice.

Rule: `old` stands in the file exactly once (`test_stale` looks), and what is named in `tests` passes without the mutant.
"""

from __future__ import annotations

from . import evidence, groups, leases, on_disk, reconcile, serving

MUTANTS = [*on_disk.MUTANTS, *leases.MUTANTS, *evidence.MUTANTS, *reconcile.MUTANTS, *groups.MUTANTS, *serving.MUTANTS]
