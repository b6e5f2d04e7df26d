"""A client believes nobody: an answer counts as right only if the right service answers the question that was asked."""

from __future__ import annotations

import msgspec
import pytest

from portfsm.demo.clients import Counts


def body(service: str = "cart", path: str = "/7") -> bytes:
    return msgspec.json.encode({"service": service, "owner": f"{service}-1", "port": 5, "path": path})


@pytest.mark.parametrize(
    ("status", "answer", "counts"),
    [
        (200, body(), Counts(right=1)),
        (502, b"", Counts(failed=1, failure="cart/7: status 502")),
        (200, body("users"), Counts(wrong=1, example="asked for cart/7, answered by users-1 on port 5")),
        (200, body(path="/8"), Counts(wrong=1, example="asked for cart/7, answered by cart-1 on port 5")),
    ],
)
def test_each_answer_is_judged(status: int, answer: bytes, counts: Counts) -> None:
    judge = Counts()
    judge.judge("cart", "/7", status, answer)

    assert judge == counts


def test_the_first_wrong_answer_is_kept_as_the_example() -> None:
    judge = Counts()
    for service in ("users", "search"):
        judge.judge("cart", "/7", 200, body(service))

    assert judge.wrong == 2
    assert "users-1" in judge.example
