"""`python -m portfsm.demo`: the same as `portfsm demo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from portfsm import InvalidValue
from portfsm.demo import DEFAULT_SECONDS, run


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="python -m portfsm.demo", description="The main job on real sockets, and the proof that it was done."
    )
    parser.add_argument("--dir", type=Path, help="where to leave the logs (default: a new temporary directory)")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="how long to churn (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    arguments = parser.parse_args()
    try:
        return run(directory=arguments.dir, seconds=arguments.seconds, json=arguments.json, console=Console())
    except InvalidValue as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
