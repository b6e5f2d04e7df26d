"""The commands under one name, and how their failures end: a sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import click

from portfsm.cli import _check, _hand, _history, _log, _options, _status
from portfsm.cli._out import complain
from portfsm.errors import JournalCorrupt, PortfsmError

__all__ = ["run"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("portfsm"), prog_name="portfsm")
def _portfsm() -> None:
    """Ports for replicas behind a proxy: watch it work, read its log, take a hand.

    LOG is the directory a controller keeps its events in. Every command takes --json for programs. Shell completion:
    eval "$(_PORTFSM_COMPLETE=bash_source portfsm)" (or zsh_source, fish_source).
    """


@_options.command("portfsm demo", "portfsm demo --dir /tmp/demo --seconds 30")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where its logs go. Default: a new temporary directory, kept.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="How long it runs, about.")
@_options.as_json
def _demo(directory: Path | None, seconds: float, as_json: bool) -> int:  # noqa: FBT001
    """Kill a real controller and watch nothing get lost.

    Real replicas behind a lagging proxy, kill -9 of the controller in the middle, replay, and a proof from the log and
    from the clients' counts. Exit code 1 if any check fails.
    """
    from rich.console import Console  # noqa: PLC0415  (not needed by most commands, and slow to import)

    from portfsm.demo import run as run_demo  # noqa: PLC0415

    return run_demo(directory=directory, seconds=seconds, json=as_json, console=Console())


_portfsm.add_command(_demo, "demo")
for _module in (_status, _log, _history, _check, _hand):
    for _value in list(vars(_module).values()):
        if isinstance(_value, click.Command):
            _portfsm.add_command(_value)


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    try:
        code = _portfsm.main(arguments, prog_name="portfsm", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except JournalCorrupt as error:
        complain(str(error))
        return 1
    except PortfsmError as error:
        complain(str(error))
        return 2
    except BrokenPipeError:
        # Whoever read us has gone (`| head`). The interpreter would complain once more when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        complain(str(error))
        return 2
    return code if isinstance(code, int) else 0
