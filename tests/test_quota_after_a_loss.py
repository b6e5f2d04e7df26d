"""Quotas in a pool whose history was lost."""

from __future__ import annotations

import pytest

from portfsm import PoolSpec, Quota, Request
from portfsm.commands import AllocateGroup, DefinePool, Open
from portfsm.errors import QuotaExceeded


@pytest.mark.parametrize("asked", ["one", "group"])
def test_a_soft_quota_that_takes_ports_for_held_whose_loss_is_over(empty, asked):
    """The first call after the hold that follows a lost history notices its end; it was refused, as if nothing were free yet."""
    empty.do(Open(1, "h", "boot", 1, 1, lost=True))
    empty.do(DefinePool(PoolSpec("p", ports="100-105", hold_s=10.0, quotas=[Quota("b", soft=2)])))
    empty.pass_time(10)
    if asked == "one":
        assert empty.allocate("a0", service="a").port == 100
    else:
        assert empty.do(AllocateGroup([Request("p", "a0", service="a", count=4)]))[-1] == "allocated"
    empty.ledger = empty.replayed()
    while True:
        try:
            empty.allocate(f"c{empty.ledger.seq}", service="c")
        except QuotaExceeded as error:
            assert error.kept_for_others == 2
            break
    assert empty.ledger.statistics("p").free == 2
