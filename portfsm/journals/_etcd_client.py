"""Questions to a cluster, one at a time over one connection, to whichever member answers.

A request without an answer may have been carried out, now or later. So everything asked here may be asked again: reads,
and transactions whose comparison lets them through once. Whoever asks is told whether an earlier try is in doubt.
"""

# ruff: noqa: N818  (the names say what happened)
from __future__ import annotations

import ssl
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import httpx

from portfsm.errors import InvalidValue, JournalError, JournalUnreadable
from portfsm.journals._etcd_wire import Failure, Token, decode, encode

if TYPE_CHECKING:
    from portfsm.journals._etcd_url import Place

__all__ = ["Client", "NoAnswer", "NoRoom", "Refused"]

T = TypeVar("T")

_CONNECT_S = 1.0
_PAUSE_S = 0.05
_OK, _UNAUTHORIZED, _SERVER_FAULT = 200, 401, 500
_SPACE = "space exceeded"
_TOKENS = ("invalid auth token", "user name is empty", "auth: revision in header is old")
_BUSY = ("too many requests", "leader changed", "no leader", "timed out", "stopped")
"""Refusals that another try, or another member, may not give."""


class NoAnswer(JournalUnreadable):
    """No member answered in time. `doubtful`: the request may have been carried out all the same."""

    doubtful = False


class NoRoom(JournalError):
    """The cluster's quota is used up, so this try was not carried out. `doubtful`: an earlier one may have been."""

    fields = ("path", "doubtful")
    doubtful: bool


class Refused(JournalError):
    """The cluster understood and said no, in its own words."""

    fields = ("path", "said")
    said: str


@attrs.frozen
class Reply:
    """An answer's body, and whether an earlier try of the same request may have been carried out."""

    body: bytes
    doubtful: bool


class Client:
    """One cluster. An answer is waited for `patience_s` unless told otherwise; a member that gives none is left after a third of that."""

    def __init__(self, place: Place, *, patience_s: float) -> None:
        self.place = place
        self.patience_s = patience_s
        self._request_s = max(0.5, min(5.0, patience_s / 3))
        self._http: httpx.Client | None = None
        self._current = 0
        self._token = ""
        self._cluster = 0

    def close(self) -> None:
        """Let go of the connection."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def ask(self, path: str, body: dict[str, Any], kind: type[T], *, patience_s: float | None = None) -> tuple[T, bool]:
        """The answer, and whether an earlier try is in doubt. Raises `NoAnswer`, `NoRoom`, `Refused`."""
        patience_s = self.patience_s if patience_s is None else patience_s
        reply = self._ask(path, encode(body), time.monotonic() + patience_s, patience_s)
        try:
            answer = decode(reply.body, kind)
        except ValueError as error:
            message = f"{self.place.shown}: what answers does not speak etcd's JSON gateway (/v3): check host and port"
            raise Refused(message, path=self.place.shown, said=str(error)) from error
        self._check_cluster(getattr(getattr(answer, "header", None), "cluster_id", 0))
        return answer, reply.doubtful

    def _check_cluster(self, found: int) -> None:
        """Members of two clusters in one URL would each have a log of their own."""
        if found and self._cluster and found != self._cluster:
            said = f"cluster {found:x} answered where {self._cluster:x} did before"
            raise Refused(f"{self.place.shown}: {said}: name members of one cluster only", path=self.place.shown, said=said)
        self._cluster = found or self._cluster

    def _ask(self, path: str, body: bytes, until: float, patience_s: float) -> Reply:
        tried: dict[str, str] = {}
        doubtful = False
        while True:
            host = self.place.hosts[self._current]
            try:
                answer = self._post(path, body, until)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                tried[host] = _words(error)
            except httpx.TransportError as error:
                tried[host], doubtful = _words(error), True
            else:
                if answer.status_code == _OK:
                    return Reply(answer.content, doubtful)
                tried[host] = self._refusal(answer, doubtful=doubtful)
                doubtful = doubtful or answer.status_code >= _SERVER_FAULT
            self._current = (self._current + 1) % len(self.place.hosts)
            if time.monotonic() + _PAUSE_S >= until:
                raise self._no_answer(tried, patience_s, doubtful=doubtful)
            time.sleep(_PAUSE_S if len(tried) >= len(self.place.hosts) else 0)

    def _post(self, path: str, body: bytes, until: float) -> httpx.Response:
        if self.place.user and not self._token:
            who = encode({"name": self.place.user, "password": self.place.password})
            answer = self._send("auth/authenticate", who, self._left_s(until))
            if answer.status_code != _OK:
                return answer
            self._token = decode(answer.content, Token).token
        return self._send(path, body, self._left_s(until), {"Authorization": self._token} if self._token else None)

    def _left_s(self, until: float) -> float:
        return max(0.05, min(self._request_s, until - time.monotonic()))

    def _send(self, path: str, body: bytes, left_s: float, headers: dict[str, str] | None = None) -> httpx.Response:
        if self._http is None:
            self._http = self._connect()
        timeout = httpx.Timeout(left_s, connect=min(left_s, _CONNECT_S))
        return self._http.post(f"{self.place.endpoints[self._current]}/v3/{path}", content=body, headers=headers, timeout=timeout)

    def _connect(self) -> httpx.Client:
        place = self.place
        verify: ssl.SSLContext | bool = False
        if place.tls:
            try:
                verify = ssl.create_default_context(cafile=place.ca or None)
                if place.cert:
                    verify.load_cert_chain(place.cert, place.key)
            except OSError as error:
                message = f"{place.shown}: ca, cert or key cannot be used: {error.strerror or error}; check the files that the URL names"
                raise InvalidValue(message, name="target", value=place.shown) from error
        http = httpx.Client(verify=verify, trust_env=False)
        weakref.finalize(self, http.close)
        return http

    def _refusal(self, answer: httpx.Response, *, doubtful: bool) -> str:
        """Why the answer is none; raises what no other try would mend."""
        failure = _failure(answer)
        if _SPACE in failure.message:
            message = (
                f"{self.place.shown}: the cluster's quota is used up: nothing was written. Ship older events (archive=DIR) or delete what "
                "else lies there, then compact, `etcdctl defrag` each member and `etcdctl alarm disarm`; or raise --quota-backend-bytes"
            )
            raise NoRoom(message, path=self.place.shown, doubtful=doubtful)
        if any(text in failure.message for text in _TOKENS) and self.place.user:
            self._token = ""
            return failure.message
        if answer.status_code >= _SERVER_FAULT or any(text in failure.message for text in _BUSY):
            return failure.message or f"status {answer.status_code}"
        why = failure.message or f"status {answer.status_code}"
        raise Refused(f"{self.place.shown}: the cluster refused: {why}", path=self.place.shown, said=why)

    def _no_answer(self, tried: dict[str, str], patience_s: float, *, doubtful: bool) -> NoAnswer:
        found = ", ".join(f"{host} ({why})" for host, why in tried.items())
        message = f"{self.place.shown}: no answer within {patience_s:g} s; tried {found}. Check that the cluster runs and has a majority"
        error = NoAnswer(message, path=self.place.shown, errno=None)
        error.doubtful = doubtful
        return error


def _failure(answer: httpx.Response) -> Failure:
    try:
        return decode(answer.content, Failure)
    except ValueError:
        return Failure()


def _words(error: httpx.TransportError) -> str:
    """What went wrong, in a few words."""
    kinds = {"ConnectTimeout": "no connection in time", "ReadTimeout": "no answer in time", "WriteTimeout": "took no request in time"}
    return kinds.get(type(error).__name__) or str(error) or type(error).__name__
