"""What an agent and those who ask it say to each other: JSON over HTTP, with a bearer token, every size bounded.

    POST /v1/check      {"proxy": "haproxy", "places": [["10.0.0.7", 30000, 417], ...]}
    200                 {"answers": [{"incarnation": "...", "verdict": "CLEAR", "generation": 417, "reason": "..."}, ...]}
    POST /v1/withdraw   the same question; the answers are empty

Answers come in the order of the places, and carry no times: the clocks of two machines do not compare. Whoever asks takes its own
readings before and after, which enclose the agent's. Errors are 4xx and 5xx with a sentence as `{"error": "..."}`.
"""

from __future__ import annotations

import hmac
from typing import Annotated

import msgspec

from portfsm.errors import InvalidValue

__all__ = [
    "ANSWER_BYTES", "CHECK", "PLACES", "QUESTION_BYTES", "WITHDRAW",
    "Answer", "Answers", "Failure", "Question", "check_token", "same_token",
]  # fmt: skip

CHECK, WITHDRAW = "/v1/check", "/v1/withdraw"
PLACES = 1_000
"""How many places one question may have; who has more asks again."""
QUESTION_BYTES = 512 << 10
ANSWER_BYTES = 2 << 20
_LEAST_TOKEN, _MOST_TOKEN = 16, 512

_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Question(msgspec.Struct):
    """Host, port, since; all of one proxy."""

    proxy: _Text
    places: Annotated[list[tuple[_Text, _Port, _Seq]], msgspec.Meta(max_length=PLACES)]


class Answer(msgspec.Struct):
    """Evidence without the times."""

    incarnation: _Text
    verdict: Annotated[str, msgspec.Meta(pattern="^(CLEAR|HELD|UNKNOWN)$")]
    generation: _Seq | None
    reason: Annotated[str, msgspec.Meta(max_length=1024)]


class Answers(msgspec.Struct):
    """As many as the question had places."""

    answers: Annotated[list[Answer], msgspec.Meta(max_length=PLACES)]


class Failure(msgspec.Struct):
    """Why there are no answers."""

    error: str


def check_token(token: object) -> str:
    """A token that may stand in a header and cannot be guessed soon. Raises `InvalidValue`, which does not repeat it."""
    fits = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    if not fits or not _LEAST_TOKEN <= len(str(token)) <= _MOST_TOKEN:
        rule = f"{_LEAST_TOKEN} to {_MOST_TOKEN} printable ASCII characters without spaces"
        raise InvalidValue(f"the token must be {rule}; make one with `openssl rand -hex 32`", name="token", value=None)
    return str(token)


def same_token(header: bytes, token: str) -> bool:
    """Whether an `authorization` header carries it, in a time that tells nothing about where they differ."""
    scheme, _, value = header.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(value.strip(), token.encode())
