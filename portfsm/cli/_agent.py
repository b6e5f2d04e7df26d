"""`portfsm agent`: answers questions about the proxies on this node. The protocol is in `portfsm.witnesses._wire`."""

from __future__ import annotations

import json
import re
import signal
import stat
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portfsm.cli import _options as options
from portfsm.cli._out import complain
from portfsm.cli._text import neutral
from portfsm.errors import InvalidValue

if TYPE_CHECKING:
    import ssl

    from anyio.abc import Listener

    from portfsm.evidence import Witness

__all__ = ["agent"]

_TOKEN_BYTES = 4_096
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:-]*)=(.+)")
_LOOPBACK = ("127.", "::1", "localhost")


@options.command(
    "portfsm agent --listen 10.0.0.7:8377 --token-file token --haproxy /run/haproxy-master.sock --ports-file /etc/haproxy/conf/ports.cfg",
    "portfsm agent --listen 10.0.0.7:8377 --token-file token --tls-certificate cert.pem --tls-key key.pem --haproxy edge-1=/run/edge.sock",
    "portfsm agent --listen 127.0.0.1:8377 --token-file token --nginx /run/nginx.pid --generation-url http://127.0.0.1:8099/generation",
)
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where to answer.")
@click.option(
    "--token-file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Holds the token that those who ask must know."
)
@click.option(
    "--haproxy", metavar="[NAME=]SOCKET", multiple=True, help="A HAProxy, by its master socket. NAME is what RemoteWitness calls it."
)
@click.option("--ports-file", metavar="[NAME=]FILE", multiple=True, help="The file with `setenv GEN` that this HAProxy's reloads read.")
@click.option("--state-file", metavar="[NAME=]PATH", multiple=True, help="What this HAProxy's reloads load its servers' state from.")
@click.option("--config", metavar="[NAME=]PATH", multiple=True, help="Its configuration: a line that makes evidence wrong holds all ports.")
@click.option("--retries-replies", metavar="NAME", multiple=True, help="This HAProxy retries on more than conn-failure.")
@click.option("--nginx", metavar="[NAME=]PIDFILE", multiple=True, help="An nginx, by its pid file.")
@click.option("--generation-url", metavar="[NAME=]URL", multiple=True, help="Where that nginx says its generation and $pid.")
@click.option("--envoy", metavar="[NAME=]URL", multiple=True, help="An Envoy, by its admin interface.")
@click.option("--envoy-subscription", metavar="NAME", multiple=True, help="A source of its hosts, as its statistics call it: cluster.app.")
@click.option("--connect-timeout", type=options.SECONDS, default="5s", show_default=True, help="The longest of an Envoy's clusters.")
@click.option("--retries", type=options.COUNT, default="3", show_default=True, help="The most that an Envoy's route allows.")
@click.option("--tls-certificate", type=click.Path(exists=True, dir_okay=False), help="Answer over TLS with this chain.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its key, unless it is in the same file.")
@options.as_json
def agent(listen: str, token_file: Path, as_json: bool, **given: Any) -> None:  # noqa: FBT001
    """Answer witness questions for the proxies on this node.

    A controller on another node asks with RemoteWitness(url, proxy=NAME, token=...). NAME is `haproxy`, `nginx` or `envoy`
    unless it is given. Nothing is remembered and nothing is sent unasked; when the agent is gone, its proxies are silent and
    their ports are kept. It ends at SIGTERM or Ctrl-C.
    """
    import anyio

    host, port = _address(listen)
    token = _token(token_file)
    witnesses = _witnesses(given)
    context = _context(given["tls_certificate"], given["tls_key"])
    _complain_of_forgetful(given)
    if context is None and not host.startswith(_LOOPBACK):
        complain("without --tls-certificate the token and the answers can be read and forged on the way: on a network of your own only")
    anyio.run(_run, host, port, token, witnesses, context, as_json)


async def _run(host: str, port: int, token: str, witnesses: list[Witness], context: ssl.SSLContext | None, as_json: bool) -> None:  # noqa: FBT001
    import anyio

    from portfsm.witnesses._agent import Agent, over_tls

    listener: Listener[Any] = await anyio.create_tcp_listener(local_host=host, local_port=port)
    # The number that was given, or that the system chose for 0.
    bound = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  (no Django here)
    if context is not None:
        listener = over_tls(listener, context)
    async with listener, anyio.create_task_group() as group:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            group.start_soon(Agent(witnesses, token=token).serve, listener)
            _announce(f"{'https' if context else 'http'}://{_bracketed(host)}:{bound}", [each.proxy for each in witnesses], as_json=as_json)
            async for _ in signals:
                group.cancel_scope.cancel()


def _announce(url: str, proxies: list[str], *, as_json: bool) -> None:
    click.echo(json.dumps({"url": url, "proxies": proxies}) if as_json else f"{url} answers for {', '.join(proxies)}")


def _witnesses(given: dict[str, Any]) -> list[Witness]:
    """One for each proxy named. They are imported when there is one: what they need is an extra."""
    urls = _of_each(given, "nginx", "generation_url")
    paths = {option: _of_each(given, "haproxy", option) for option in ("ports_file", "state_file", "config")}
    retrying = _retrying(given)
    found = [
        _made(
            "haproxy", "HAProxyWitness", where, proxy=name, retries_replies=name in retrying,
            **{option: each.get(name) for option, each in paths.items()},
        )
        for name, where in _named(given, "haproxy")
    ]  # fmt: skip
    found += [_made("nginx", "NginxWitness", where, proxy=name, generation_url=urls.get(name)) for name, where in _named(given, "nginx")]
    bounds = {"connect_timeout_s": given["connect_timeout"], "retries": given["retries"], "subscriptions": given["envoy_subscription"]}
    found += [_made("envoy", "EnvoyWitness", where, proxy=name, **bounds) for name, where in _named(given, "envoy")]
    names = [witness.proxy for witness in found]
    if not names:
        raise click.UsageError("name at least one proxy: --haproxy SOCKET, --nginx PIDFILE or --envoy URL")
    if len(set(names)) < len(names):
        raise click.UsageError(f"two proxies have one name ({', '.join(names)}): write NAME=... for each")
    return found


def _made(module: str, kind: str, where: str, **named: Any) -> Witness:
    try:
        witness: Witness = getattr(import_module(f"portfsm.witnesses.{module}"), kind)(where, **named)
    except (InvalidValue, ModuleNotFoundError) as error:
        raise click.UsageError(str(error)) from error
    return witness


def _named(given: dict[str, Any], option: str, kind: str = "") -> list[tuple[str, str]]:
    """(name, value) of each time that an option was given; without a name it is that of the kind of proxy."""
    matches = [(_NAMED.fullmatch(text), text) for text in given[option]]
    return [(match[1], match[2]) if match else (kind or option, text) for match, text in matches]


def _of_each(given: dict[str, Any], kind: str, option: str) -> dict[str, str]:
    """What an option says of each proxy of a kind."""
    pairs, shown = _named(given, option, kind), f"--{option.replace('_', '-')}"
    if unknown := {name for name, _ in pairs} - {name for name, _ in _named(given, kind)}:
        raise click.UsageError(f"{shown} for {', '.join(sorted(unknown))}, which no --{kind} names")
    if len(found := dict(pairs)) < len(pairs):
        raise click.UsageError(f"{shown} is given twice for one proxy: write NAME=... for each")
    return found


def _retrying(given: dict[str, Any]) -> set[str]:
    """The HAProxies whose streams that wait for a reply hold a port too."""
    names = set(given["retries_replies"])
    if unknown := names - {name for name, _ in _named(given, "haproxy")}:
        raise click.UsageError(f"--retries-replies for {', '.join(sorted(unknown))}, which no --haproxy names")
    return names


def _complain_of_forgetful(given: dict[str, Any]) -> None:
    """Tell of each HAProxy whose next reload may bring back a port that was clear in maintenance."""
    files = _of_each(given, "haproxy", "ports_file")
    for name in [name for name, _ in _named(given, "haproxy") if name not in files]:
        complain(f"without --ports-file {name}=FILE maintenance counts for {name} whatever file its next reload reads")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port[:6]) <= 65_535):  # noqa: PLR2004
        raise click.UsageError(f"--listen is HOST:PORT, not {neutral(text)!r}")
    return host.strip("[]"), int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _token(path: Path) -> str:
    """The token in a file; told, when others may read it."""
    from portfsm.witnesses._wire import check_token

    with path.open("rb") as file:
        text = file.read(_TOKEN_BYTES).decode("utf-8", "replace").strip()
        mode = path.stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        complain(f"{path} can be read by others than its owner: chmod 600 {path}")
    try:
        return check_token(text)
    except InvalidValue as error:
        raise click.UsageError(f"{path}: {error}") from error


def _context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise click.UsageError("--tls-key needs --tls-certificate")
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise click.UsageError(f"{certificate}: not a certificate with its key: {error.reason or error}") from error
    return context
