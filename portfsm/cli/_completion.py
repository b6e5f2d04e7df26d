"""Completion of commands, options and paths in bash, zsh and fish.

The shell runs `portfsm` with `_PORTFSM_COMPLETE` set and gets suggestions; the script that makes it do so is printed, or put
where the shell looks for such scripts. No start-up file of the user is edited.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

if TYPE_CHECKING:
    from collections.abc import Callable

    _Callback = Callable[[click.Context, click.Parameter, str | None], None]
    _Function = Callable[..., Any]

__all__ = ["VARIABLE", "install", "show"]

VARIABLE = "_PORTFSM_COMPLETE"
_SHELLS = ("bash", "zsh", "fish")
_MINE = ""
"""Stands for the shell that the user logs in with."""


def _show(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell is not None and not ctx.resilient_parsing:
        click.echo(_script(_resolved(shell), ctx))
        ctx.exit()


def _install(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    shell = _resolved(shell)
    path, advice = _place(shell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_script(shell, ctx))
    click.echo(f"{path} written. {advice}")
    ctx.exit()


def _option(name: str, callback: _Callback, text: str) -> Callable[[_Function], _Function]:
    return click.option(
        name, is_flag=False, flag_value=_MINE, metavar="[SHELL]", is_eager=True, expose_value=False, callback=callback, help=text,
    )  # fmt: skip


show = _option("--show-completion", _show, "Print the completion script for bash, zsh or fish.")
install = _option("--install-completion", _install, "Put that script where the shell finds it.")


def _resolved(shell: str) -> str:
    """The shell that was named, or the one that the user logs in with."""
    name = Path(os.environ.get("SHELL", "")).name if shell == _MINE else shell
    if name not in _SHELLS:
        raise click.UsageError(f"completion exists for {', '.join(_SHELLS)}: name one of them")
    return name


def _script(shell: str, ctx: click.Context) -> str:
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}")
    return completion(ctx.command, {}, "portfsm", VARIABLE).source()


def _place(shell: str) -> tuple[Path, str]:
    """Where the shell looks for such scripts, and what is left to do."""
    home = Path.home()
    if shell == "bash":
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        return data / "bash-completion/completions/portfsm", "New shells will complete, given the package bash-completion."
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return config / "fish/completions/portfsm.fish", "New shells will complete."
    return home / ".zfunc/_portfsm", "Put `fpath+=~/.zfunc; autoload -Uz compinit; compinit` into ~/.zshrc if it is not there."
