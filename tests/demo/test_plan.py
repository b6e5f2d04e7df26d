"""The demo's ports are its own: unused, and out of the reach of outgoing connections."""

from __future__ import annotations

import socket

import pytest

from portfsm.demo import plan
from portfsm.demo.plan import HOLD_S, DemoError, find_ports, lag_for


def test_chosen_ports_lie_outside_the_ephemeral_range_and_the_range_to_avoid() -> None:
    taken = find_ports(36)
    ports = find_ports(36, avoid=taken)

    assert not plan.overlaps(ports, plan.ephemeral_ports(), taken)
    assert all(map(plan.is_unused, ports))


def test_a_range_with_a_listener_in_it_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(plan, "ephemeral_ports", lambda: range(10_000, port))  # the listener's port is the first candidate

        assert port not in find_ports(1)


def test_no_room_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ephemeral_ports", lambda: range(1, 65_536))

    with pytest.raises(DemoError, match="end some servers"):
        find_ports(36)


@pytest.mark.parametrize(("seconds", "lag_s"), [(3.0, 0.2), (6.0, 0.4), (15.0, 0.8), (600.0, 0.8)])
def test_short_runs_have_a_short_lag_and_the_hold_is_at_least_three_times_as_long(seconds: float, lag_s: float) -> None:
    assert lag_for(seconds) == pytest.approx(lag_s)
    assert lag_for(seconds) * 3 <= HOLD_S + 1e-9
