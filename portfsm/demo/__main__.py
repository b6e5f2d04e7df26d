"""`python -m portfsm.demo`: the same as `portfsm demo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from portfsm import InvalidValue
from portfsm.demo import DEFAULT_SECONDS, haproxy, run


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="python -m portfsm.demo", description="The main job on real sockets, and the proof that it was done."
    )
    parser.add_argument("--dir", type=Path, help="where to leave the logs (default: a new temporary directory)")
    parser.add_argument("--haproxy", action="store_true", help="show instead what evidence is for, on the real HAProxy")
    lengths = f"{DEFAULT_SECONDS:g}; with --haproxy {haproxy.DEFAULT_SECONDS:g}"
    parser.add_argument("--seconds", type=float, help=f"how long to churn (default: {lengths})")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    arguments = parser.parse_args()
    chosen, default = (haproxy.run, haproxy.DEFAULT_SECONDS) if arguments.haproxy else (run, DEFAULT_SECONDS)
    seconds = default if arguments.seconds is None else arguments.seconds
    try:
        return chosen(directory=arguments.dir, seconds=seconds, json=arguments.json, console=Console())
    except InvalidValue as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
