"""`etcd://[user:password@]host:port[,host:port…]/NAME[?option=value…]`, read strictly. The password is shown nowhere.

tls=yes            speak TLS, checked against the system's authorities
ca=FILE            ... or against these (implies tls)
cert=FILE&key=FILE show this client certificate (implies tls)
archive=DIR        where older segments are shipped to before they are deleted
quota_mib=2048     the cluster's --quota-backend-bytes, if it is not etcd's default
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from portfsm.errors import InvalidValue

__all__ = ["Place", "parse"]

DEFAULT_PORT = 2379
_QUOTA_MIB = 2048
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}")
_OPTIONS = ("tls", "ca", "cert", "key", "archive", "quota_mib")
_FORM = "etcd://host:port[,host:port]/NAME"
_MAX_PORT = 65_535


@attrs.frozen
class Place:
    """One log in one cluster."""

    hosts: tuple[str, ...]
    """`host:port` of each member that may be asked."""
    name: str
    user: str = ""
    password: str = attrs.field(default="", repr=False)
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    archive: str = ""
    quota_bytes: int = _QUOTA_MIB << 20

    @property
    def shown(self) -> str:
        """For errors and logs: no user, no password, no options."""
        return f"etcd://{','.join(self.hosts)}/{self.name}"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where requests go."""
        return tuple(f"{'https' if self.tls else 'http'}://{host}" for host in self.hosts)


def parse(url: str) -> Place:
    """The place that `url` names. Raises `InvalidValue`, which never quotes what may be a password."""
    secret, at, _ = url[len("etcd:") :].removeprefix("//").rpartition("@")
    if "@" in secret or "/" in secret or "?" in secret or "#" in url:
        _refuse("the characters @ / ? # in a user's name, a password or an option must be written %40 %2F %3F %23", "")
    try:
        parts = urlsplit(url)
    except ValueError:
        _refuse("its host cannot be read", "")
    user, colon, password = secret.partition(":")
    if at and not (user and colon and password):
        _refuse("it needs both a user and a password, or neither", "")
    hosts = tuple(_host(host) for host in parts.netloc.rpartition("@")[2].split(","))
    if len(set(hosts)) != len(hosts):
        _refuse("it names one host twice", ",".join(hosts))
    name = parts.path.removeprefix("/")
    if not _NAME.fullmatch(name):
        _refuse("NAME, which log of the cluster is meant, is 1 to 64 of the characters a-z A-Z 0-9 . _ -", parts.path)
    return attrs.evolve(_options(parts.query), hosts=hosts, name=name, user=unquote(user), password=unquote(password))


def _host(text: str) -> str:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(DEFAULT_PORT)
    if not _HOST.fullmatch(host):
        _refuse("it has a host that is none" if host else "it has no host", text)
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MAX_PORT):
        _refuse("a port is a number from 1 to 65535", text)
    return f"{host}:{port}"


def _options(query: str) -> Place:
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            _refuse(f"it has an option that is none of {', '.join(_OPTIONS)}", name)
        if name in given or not value:
            _refuse(f"{name} is given twice or without a value", name)
        given[name] = value
    tls, quota = given.pop("tls", ""), given.pop("quota_mib", str(_QUOTA_MIB))
    if tls not in ("", "yes", "no"):
        _refuse("tls is yes or no", tls)
    if not (quota.isascii() and quota.isdigit() and 1 <= int(quota[:8]) <= 1 << 20):
        _refuse("quota_mib is a number of mebibytes, as the servers' --quota-backend-bytes", quota)
    if ("cert" in given) != ("key" in given):
        _refuse("cert and key belong together", "")
    secure = "ca" in given or "cert" in given
    if secure and tls == "no":
        _refuse("tls=no contradicts ca, cert and key", "")
    return Place((), "", tls=secure or tls == "yes", quota_bytes=int(quota) << 20, **given)


def _refuse(why: str, value: str) -> NoReturn:
    found = f", not {value!r}" if value else ""
    raise InvalidValue(f"this is no etcd URL: {why}{found}; the form is {_FORM}", name="target", value=value) from None
