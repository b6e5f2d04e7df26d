"""What the commands' arguments have in common: how a TIME, a length of time, a port and a head are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from portfsm.cli._times import parse_rate, parse_seconds, parse_time
from portfsm.errors import InvalidValue
from portfsm.values import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from portfsm.protocols import Clock

__all__ = ["COUNT", "HEAD", "LOG", "PORT", "RATE", "SECONDS", "TIME", "as_json", "clock_of", "command", "log", "node", "pool", "port"]


class _Command(click.Command):
    """A command that shows, after all else, how it is used."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The examples, each on a line of its own."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def command(*examples: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function a command. Its docstring is the help."""
    return click.command(cls=_Command, examples=examples)


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # it takes no type argument before click 8.4


class _LogType(_ParamType):
    name = "log"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Directories, by the shell's own means."""
        return [CompletionItem(incomplete, type="dir")]


class _Parsed(_ParamType):
    """A value that one of our own functions reads; what it raises is a usage error."""

    def __init__(self, name: str, read: Callable[[str, click.Context | None], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it, unless it is a default that was read already."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value, ctx)
        except InvalidValue as error:
            self.fail(str(error), param, ctx)


def clock_of(ctx: click.Context | None) -> Clock:
    """The clock that this run goes by: the machine's, unless `main` was given another."""
    if ctx is not None and ctx.obj is not None:
        clock: Clock = ctx.obj
        return clock
    from portfsm.clocks import SystemClock

    return SystemClock()


def _whole(text: str, first: int, last: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(last)) and first <= int(text) <= last):
        raise InvalidValue(f"{text!r} is not a whole number from {first} to {last}", name="number", value=text)
    return int(text)


LOG = _LogType()
TIME = _Parsed("time", lambda text, ctx: parse_time(text, now_ns=clock_of(ctx).wall_ns()))
SECONDS = _Parsed("length", lambda text, _: parse_seconds(text))
RATE = _Parsed("rate", lambda text, _: parse_rate(text))
HEAD = _Parsed("head", lambda text, _: Head.parse(text.strip()))
PORT = _Parsed("port", lambda text, _: _whole(text, 1, 65_535))
COUNT = _Parsed("count", lambda text, _: _whole(text, 0, 10**9))

log = click.argument("log", type=LOG)
port = click.argument("port", type=PORT)
pool = click.option("--pool", metavar="NAME", help="The pool, if several have this port.")
node = click.option("--node", metavar="NAME", help="The node, if it was used on several.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line and nothing else.")
