"""The commands under one name, and how their failures end: a sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click
import structlog
from click.shell_completion import shell_complete

from portfsm.cli import (
    _agent,
    _check,
    _completion,
    _copy,
    _demo,
    _doctor,
    _export,
    _hand,
    _history,
    _init,
    _log,
    _plan,
    _report,
    _serve,
    _status,
    _top,
    _who,
)
from portfsm.cli._out import complain
from portfsm.cli._text import neutral
from portfsm.errors import IllegalTransition, JournalCorrupt, PortfsmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from portfsm.protocols import Clock

__all__ = ["run"]

_INTERRUPTED = 130
_FINDINGS = (JournalCorrupt, IllegalTransition)
"""Errors that say something about the log or the port, not about how they were asked: exit code 1."""


class _Group(click.Group):
    """Commands in the order in which a newcomer wants to read them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """As they were added."""
        return list(self.commands)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"portfsm {version('portfsm')}")
        ctx.exit()


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
@_completion.show
@_completion.install
@click.pass_context
def _portfsm(ctx: click.Context) -> None:
    """Ports for replicas behind a proxy: watch it work, read its log, take a hand.

    LOG is where a controller keeps its events: a directory, or the URL of a shared journal. Reading needs no lock and changes
    nothing: a live log may be looked at.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


for _command in (
    _demo.demo, _status.status, _top.top, _log.log, _history.history, _history.explain, _who.who, _who.diff, _report.report,
    _check.verify, _check.head, _check.repair, _hand.block, _hand.unblock, _hand.hold, _hand.free,
    _export.export, _init.init, _copy.copy, _plan.plan, _doctor.doctor, _agent.agent, _serve.serve,
):  # fmt: skip
    _portfsm.add_command(_command)


def run(arguments: Sequence[str], *, clock: Clock | None = None) -> int:
    """The exit code of one command line. `clock` is the machine's unless a test brings its own."""
    _prepare()
    code = 0
    try:
        code = _invoke(arguments, clock)
        sys.stdout.flush()
    except click.ClickException as error:
        complain(_usage(error))
        code = 2
    except (click.Abort, KeyboardInterrupt):
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C there
        code = _INTERRUPTED
    except PortfsmError as error:
        complain(str(error))
        code = 1 if isinstance(error, _FINDINGS) else 2
    except BrokenPipeError:
        pass  # whoever read us has seen enough (`| head`)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        code = 2
    _let_go_of_stdout()
    return code


def _invoke(arguments: Sequence[str], clock: Clock | None) -> int:
    # Not by `Group.main`, which ends the process with code 1 when a pipe is closed.
    if instruction := os.environ.get(_completion.VARIABLE):
        return shell_complete(_portfsm, {}, "portfsm", _completion.VARIABLE, instruction)
    try:
        with _portfsm.make_context("portfsm", list(arguments), obj=clock) as ctx:
            code: object = _portfsm.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> str:
    """What is wrong with the command line, in one sentence, and where to read on."""
    message = " ".join(error.format_message().split()).removesuffix(".")
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} (see `{ctx.command_path} --help`)" if ctx else message


def _prepare() -> None:
    """Output that cannot be encoded is escaped or has nowhere to go, and what the library has to tell goes to stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: its number must not fall to a file of the log
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    structlog.configure(
        processors=[_render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _render(_: Any, __: str, facts: Any) -> str:
    if facts["event"] == "portfsm.recovered":
        raise structlog.DropEvent  # `journal.unclean` has said it
    about = [str(facts[key]) for key in ("path", "found", "why", "error", "effect") if facts.get(key)]
    return neutral(f"portfsm: {facts['event']}: {': '.join(about)}")


def _let_go_of_stdout() -> None:
    """Flush; and if that fails, see to it that the interpreter does not try, and complain, once more when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
