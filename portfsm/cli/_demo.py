"""`portfsm demo`: the way to `portfsm.demo`."""

from __future__ import annotations

from pathlib import Path

import click

from portfsm.cli import _options as options
from portfsm.demo import DEFAULT_SECONDS

__all__ = ["demo"]


@options.command("portfsm demo", "portfsm demo --dir /tmp/demo --seconds 30")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where its logs go. Default: a new temporary directory, kept.")
@click.option("--seconds", type=float, default=DEFAULT_SECONDS, show_default=True, help="How long it runs, about.")
@options.as_json
def demo(directory: Path | None, seconds: float, as_json: bool) -> int:  # noqa: FBT001
    """Kill a real controller and watch nothing get lost.

    Real replicas behind a lagging proxy, kill -9 of the controller in the middle, replay, and a proof from the log and
    from the clients' counts. Exit code 1 if any check fails.
    """
    from rich.console import Console

    from portfsm.demo import run

    return run(directory=directory, seconds=seconds, json=as_json, console=Console())
