"""`portfsm demo`: the main job on real sockets, and the proof that it was done.

A controller leases ports for real replica processes behind a proxy that hears of changes late. Everything
moves about, the controller is killed with `kill -9` and comes back. Twice at the same time: with a hold, and without,
to show what the hold is for. Start reading at `controller`: it is the example of how to use the library.

    supervisor   starts and kills the others, shows progress, runs the checks    (the process the user starts)
    ├── controller   leases ports, moves replicas, publishes routes              a side: two of each
    ├── node         starts and stops replicas; they outlive the controller
    │   └── twenty replicas
    ├── proxy        routes by a table that lags
    └── clients      ask, and look at who answers

It leaves a directory with two logs, `hold` and `no-hold`, and beside each what its controller was promised
(`*.acks.jsonl`) and what its processes had to say (`*.stderr.txt`).

`processes` sees to it that none of them is left behind, `checks` is the proof, `show` the output, `plan` the sizes. Needs the
`cli` extra (rich) to show itself. `portfsm.demo.haproxy` is the other demo: what evidence is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

__all__ = ["DEFAULT_SECONDS", "run"]

DEFAULT_SECONDS = 15.0


def run(*, directory: Path | None, seconds: float, json: bool, console: Console) -> int:
    """Run the demo and return the exit code: 0 all proved, 1 a check failed, 128 + N ended by signal N.

    `directory` gets the logs (None: a new temporary one, which is kept). Raises `InvalidValue` when it already has
    some, or when `seconds` is of no use.
    """
    # Late, because the other processes of the demo import this package too and need neither rich nor the rest.
    from portfsm.demo.supervisor import run as run_supervisor  # noqa: PLC0415

    return run_supervisor(directory=directory, seconds=seconds, json=json, console=console)
