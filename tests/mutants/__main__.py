"""python -m tests.mutants: change one line of the library at a time and see which test notices. Exit status 0 only if one does each time."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from .run import judge
from .table import MUTANTS

AT_ONCE = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only mutants whose name has this in it")
    parser.add_argument("--list", action="store_true", help="name them all")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or any(name in mutant.name for name in options.names)]
    if options.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    started = time.monotonic()
    width = max((len(mutant.name) for mutant in chosen), default=0)
    alive = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for verdict in pool.map(judge, chosen):
            alive += not verdict.killer
            print(f"{verdict.name:{width}}  {verdict.seconds:5.1f} s  {verdict.killer or verdict.fault}", flush=True)
    print(f"{len(chosen)} mutants, {len(chosen) - alive} killed, {time.monotonic() - started:.0f} s")
    return bool(alive or not chosen)


if __name__ == "__main__":
    sys.exit(main())
