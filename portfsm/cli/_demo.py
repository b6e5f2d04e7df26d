"""`portfsm demo`: the way to `portfsm.demo`."""

from __future__ import annotations

from pathlib import Path

import click

from portfsm.cli import _options as options
from portfsm.demo import DEFAULT_SECONDS
from portfsm.demo import haproxy as with_haproxy

__all__ = ["demo"]


@options.command("portfsm demo", "portfsm demo --dir /tmp/demo --seconds 30", "portfsm demo --haproxy")
@click.option("--haproxy", is_flag=True, help="Show instead what evidence is for, on the real HAProxy. Needs the extra `haproxy`.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where its logs go. Default: a new temporary directory, kept.")
@click.option(
    "--seconds",
    type=float,
    help=f"How long it runs, about.  [default: {DEFAULT_SECONDS:g}; with --haproxy {with_haproxy.DEFAULT_SECONDS:g}]",
)
@options.as_json
def demo(haproxy: bool, directory: Path | None, seconds: float | None, as_json: bool) -> int:  # noqa: FBT001
    """Kill a real controller and watch nothing get lost.

    Real replicas behind a lagging proxy, kill -9 of the controller in the middle, replay, and a proof from the log and
    from the clients' counts. Exit code 1 if any check fails.

    With --haproxy: a real HAProxy whose ports change hands many times a second, twice at once, with evidence and
    without. Exit code 1 if a client got a wrong answer with evidence, or none did without.
    """
    from rich.console import Console

    from portfsm.demo import run

    if haproxy:
        chosen, default = with_haproxy.run, with_haproxy.DEFAULT_SECONDS
    else:
        chosen, default = run, DEFAULT_SECONDS
    return chosen(directory=directory, seconds=default if seconds is None else seconds, json=as_json, console=Console())
