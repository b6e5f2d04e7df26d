"""python -m tests.simulation: seeds in bulk, one seed with its story, or a library broken on purpose."""

from __future__ import annotations

import argparse
import sys

from .broken import BREAKS, SHARED
from .many import explain, many
from .story import tell


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell its story, shortened if it fails")
    parser.add_argument("--whole", action="store_true", help="with --seed: the whole story, not shortened")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=150, help="how many (150)")
    parser.add_argument("--steps", type=int, default=200, help="steps a seed (200)")
    parser.add_argument("--long", action="store_true", help="20,000 seeds of 200 steps")
    parser.add_argument("--strict", action="store_true", help="proxies lag behind the publication, and route to leases nobody was told of")
    parser.add_argument("--shared", action="store_true", help="controllers on several machines share a log on a server")
    parser.add_argument("--broken", metavar="NAME", help=f"with a safeguard off: all, {', '.join([*BREAKS, *SHARED])}")
    parser.add_argument("--hits", action="store_true", help="count what happened")
    options = parser.parse_args()
    how = {"strict": options.strict, "shared": options.shared}
    if options.broken == "all":
        return _all_broken(options, how)
    if options.seed is not None:
        return _one(options, how)
    found = many(options.first, 20_000 if options.long else options.seeds, options.steps, **how, name=options.broken or "")
    print(found.figures(options.steps))
    if options.hits:
        print(*(f"{count:8} {what}" for what, count in sorted(found.hits.items())), sep="\n")
    for seed, _, text in found.failures[:10]:
        print(f"seed {seed}: {text[:200]}")
    if found.failures:
        print(explain(found.failures[0][0], options.steps, **how, name=options.broken or ""))
    return bool(found.failures)


def _one(options, how) -> int:
    if not options.whole:
        print(explain(options.seed, options.steps, **how, name=options.broken or ""))
        return 0
    outcome = tell(options.seed, options.steps, **how)
    print(*outcome.story, sep="\n")
    return outcome.failure is not None


def _all_broken(options, how) -> int:
    missed = 0
    for name in SHARED if options.shared else BREAKS:
        found = many(options.first, 1000, options.steps, name=name, enough=1, chunk=4, **how)
        caught = f"caught by seed {found.failures[0][0]}: {found.failures[0][2][:110]}" if found.failures else "NOT CAUGHT"
        missed += not found.failures
        print(f"{name:28} {caught}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
