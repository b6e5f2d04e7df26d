"""`portfsm demo --haproxy`: what evidence is for, on the real HAProxy, twice at the same time.

Eight ports, replicas that live for half a second, a HAProxy that is reloaded a few times a second, clients that look at who
answers. On one side a port is free when it is released; on the other when every process of HAProxy has let go of it.

    supervisor   `portfsm.demo.supervisor`, which this one extends            (the process the user starts)
    ├── keeper       runs HAProxy: a master, its worker, the old workers       a side: two of each
    ├── controller   leases ports, drains and stops replicas, reloads HAProxy
    ├── node         `portfsm.demo.node`: starts and stops replicas
    └── clients      busy, fresh and idle ones

It leaves the two logs, `evidence` and `no-evidence`, and beside each the configuration that HAProxy had last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

__all__ = ["DEFAULT_SECONDS", "run"]

DEFAULT_SECONDS = 20.0


def run(*, directory: Path | None, seconds: float, json: bool, console: Console) -> int:
    """Run the demo and return the exit code: 0 shown and proved, 1 not, 128 + N ended by signal N.

    Raises `InvalidValue` when the directory has logs already, when `seconds` is of no use, or when there is no HAProxy.
    """
    from portfsm.demo.haproxy.supervisor import run as run_supervisor  # noqa: PLC0415  (as in `portfsm.demo.run`)

    return run_supervisor(directory=directory, seconds=seconds, json=json, console=console)
