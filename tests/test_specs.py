"""Pools as their authors write them: every form of ports, every number and name that is none."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from portfsm.commands import Allocate
from portfsm.errors import CommandRejected, InvalidValue
from portfsm.specs import MAX_HOLD_S, PoolSpec, check_overlaps, check_pool_name, check_text, normalise_ports

EXPECTED = (range(30_000, 30_010), range(41_500, 41_501))


@pytest.mark.parametrize(
    "ports",
    [
        "30000-30009,41500",
        " 30000 - 30009 , 41500 ",
        "41500,30000-30009",
        "30000-30004,41500,30005-30009",
        "30000-30009,41500-41500",
        EXPECTED,
        [range(30_000, 30_010), 41_500],
        [*range(30_000, 30_010), 41_500],
        [41_500, *reversed(range(30_000, 30_010))],
        {41_500, *range(30_000, 30_010)},
        [range(30_009, 29_999, -1), range(41_500, 41_501)],
        [range(30_000, 30_010, 2), range(30_001, 30_010, 2), 41_500],
        [range(5, 5), *EXPECTED],
    ],
    ids=str,
)
def test_a_form_of_ports_that_reads_otherwise(ports):
    assert normalise_ports(ports) == EXPECTED


def test_a_generator_of_ports_read_twice():
    assert PoolSpec("p", ports=(number for number in (1, 2, 3))).ports == (range(1, 4),)


@pytest.mark.parametrize(
    ("ports", "size"), [("1", 1), ("1-65535", 65_535), ("65535", 1), (range(8000, 8004), 4), (range(8000, 8010, 3), 4)]
)
def test_a_range_whose_end_belongs_to_nobody(ports, size):
    """Text is inclusive, a Python range is not: one capacity, and the last port is usable (Ray: half-open pool, closed check)."""
    assert PoolSpec("p", ports=ports).size == size


@pytest.mark.parametrize(
    "ports",
    [
        "", ",", "1,", "a", "1-", "-1", "1--2", "1-2-3", "5-4", "0", "0-5", "65536", "1-65536", "99999", "123456", "1.5", "1_0", "+1",
        "٣٠", "１", "8000..8004", "8000 8001",
        "1,1", "1-5,5", "1-5,3-4", "5,1-9",
        [], (), range(0), range(5, 5), [range(5, 5)], iter(()),
        [0], [65_536], [-1], [1.0], ["1"], ["1-5"], [True], [None], [[1]], [1, 1], [range(1, 5), 4], range(5), range(60_000, 70_000),
        range(1, 10**9, 2), range(10**9, 0, -1), [range(1, 10**9)],
        None, 8000, 8000.0, True, b"12", bytearray(b"12"),
    ],
    ids=lambda ports: "iterator" if hasattr(ports, "__next__") else repr(ports),  # a repr with an address differs between processes
)  # fmt: skip
def test_ports_that_are_none(ports):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("p", ports=ports)
    assert caught.value.name == "ports"


@given(st.sets(st.integers(1, 65_535), min_size=1, max_size=50))
@example({1, 65_535})
@example({65_534, 65_535})
def test_a_port_lost_or_won_on_the_way_through_text(numbers):
    spec = PoolSpec("p", ports=numbers)
    assert {number for piece in spec.ports for number in piece} == numbers
    assert spec.size == len(numbers)
    assert PoolSpec("p", ports=spec.ranges) == spec == PoolSpec("p", ports=spec.ports)
    assert all(before.stop < after.start for before, after in zip(spec.ports, spec.ports[1:], strict=False)), "merged and ascending"


@given(st.text() | st.lists(st.integers() | st.text() | st.none() | st.booleans(), max_size=5) | st.floats() | st.binary())
def test_junk_for_ports_that_escapes_as_another_error(ports):
    try:
        assert PoolSpec("p", ports=ports).size > 0
    except InvalidValue as error:
        assert error.name == "ports"


def test_two_specs_that_say_the_same_and_differ():
    written = PoolSpec("p", ports="30000-30003", hold_s=10, floor_s=0)
    counted = PoolSpec("p", ports=[30_003, 30_002, 30_001, 30_000], hold_s=10.0)
    assert written == counted
    assert hash(written) == hash(counted)
    assert written != PoolSpec("p", ports="30000-30003", hold_s=10.5)
    assert written != PoolSpec("q", ports="30000-30003")


def test_a_zero_that_digests_in_two_ways():
    assert math.copysign(1, PoolSpec("p", ports="1", hold_s=-0.0).hold_s) == 1


@pytest.mark.parametrize("name", ["hold_s", "floor_s"])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), -1, -1e-9, True, False, "10", None, [], 1j, 10**400, MAX_HOLD_S * 1.01]
)
def test_a_length_of_time_that_is_none(name, value):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("p", ports="1", **{name: value})
    assert caught.value.name == name
    assert caught.value.value is value or caught.value.value == value


@pytest.mark.parametrize(
    ("hold_s", "hold_ms"), [(0, 0), (10, 10_000), (0.0001, 1), (0.001, 1), (0.0011, 2), (1.0004, 1001), (MAX_HOLD_S, 315_576_000_000)]
)
def test_a_hold_rounded_down(hold_s, hold_ms):
    assert PoolSpec("p", ports="1", hold_s=hold_s).hold_ms == hold_ms


def test_a_floor_above_the_hold():
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("p", ports="1", hold_s=1, floor_s=1.5)
    assert caught.value.name == "floor_s"
    assert PoolSpec("p", ports="1", hold_s=1, floor_s=1).floor_s == 1


@pytest.mark.parametrize("order", ["", "LOWEST", "best", None, 1, [], b"lowest"])
def test_an_order_that_is_none(order):
    with pytest.raises(InvalidValue) as caught:
        PoolSpec("p", ports="1", order=order)
    assert caught.value.name == "order"
    assert "longest-idle" in str(caught.value)


@pytest.mark.parametrize("name", ["p", "http", "a.b_c-d", "0", "x" * 64])
def test_a_good_name_refused(name):
    assert PoolSpec(name, ports="1").name == name


@pytest.mark.parametrize("name", ["", "P", "a b", "a/b", "x" * 65, "ä", "a\n", "\na", "http\x00", None, 5, b"p", "a:b", "..\u202e"])
def test_a_pool_name_that_is_none(name):
    with pytest.raises(InvalidValue) as caught:
        check_pool_name(name)
    assert caught.value.name == "pool"


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "text",
    [
        *map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0)), "\u2028", "\u2029", "\ud800", "\udfff",
        "\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)),
    ],
    ids=lambda text: f"U+{ord(text):04X}",
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "a{}", "{}b", "ä{}€"])
def test_a_control_character_that_reaches_a_terminal(text, around):
    with pytest.raises(InvalidValue) as caught:
        check_text("owner", around.format(text))
    assert repr(text)[1:-1] in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["a", "replica 1", "Zähler", "日本", "🙂", "a/b:c#d", '"quoted"', "a\\nb", "e\u0301", "\u200b"])
def test_a_good_name_for_an_owner_refused(text):
    assert check_text("owner", text, required=True) == text


@pytest.mark.parametrize("char", ["x", "ä", "€", "🙂"])
def test_a_name_measured_in_characters_instead_of_bytes(char):
    width = len(char.encode())
    longest = char * (256 // width)
    assert check_text("owner", longest) == longest
    assert check_text("owner", longest + "y" * (256 - len(longest.encode())))
    with pytest.raises(InvalidValue, match="bytes and may have 256"):
        check_text("owner", longest + "y" * (257 - len(longest.encode())))


@pytest.mark.parametrize("text", ["", None, 5, b"a", ["a"]])
def test_an_owner_that_is_nobody(text):
    with pytest.raises(InvalidValue) as caught:
        Allocate("p", owner=text)
    assert (caught.value.name, caught.value.value) == ("owner", text)


def test_an_empty_node_or_service_refused():
    assert Allocate("p", owner="a", node="", service="").node == ""


# ---------------------------------------------------------------------- the environment


def test_an_environment_that_is_not_read(monkeypatch):
    for key, value in {"PORTS": "30000-30009,41500", "HOLD_S": "2.5", "FLOOR_S": " 1 ", "ORDER": "random", "NAME": "web"}.items():
        monkeypatch.setenv(f"MY_POOL_{key}", value)
    assert PoolSpec.from_env("MY_POOL") == PoolSpec("web", ports="30000-30009,41500", hold_s=2.5, floor_s=1, order="random")
    assert PoolSpec.from_env("MY_POOL", name="grpc").name == "grpc"


def test_an_environment_that_must_say_everything(monkeypatch):
    monkeypatch.setenv("HTTP_PORTS", "1-5")
    monkeypatch.setenv("HTTP_HOLD_S", "")
    assert PoolSpec.from_env("HTTP") == PoolSpec("http", ports="1-5")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PORTS", None), ("PORTS", ""), ("PORTS", "junk"), ("PORTS", "5-1"), ("PORTS", "1-3,2"), ("PORTS", "0-9"), ("PORTS", "65530-65536"),
        ("HOLD_S", "junk"), ("HOLD_S", "-1"), ("HOLD_S", "nan"), ("HOLD_S", "NaN"), ("HOLD_S", "inf"), ("HOLD_S", "-Infinity"), ("HOLD_S", "1e300"),
        ("FLOOR_S", "junk"), ("FLOOR_S", "-1"), ("FLOOR_S", "nan"), ("FLOOR_S", "11"),
        ("ORDER", "best"), ("NAME", "My Pool"), ("NAME", "x" * 65),
    ],
)  # fmt: skip
def test_a_variable_whose_error_does_not_name_it(monkeypatch, key, value):
    monkeypatch.setenv("HTTP_PORTS", "1-5")
    if value is None:
        monkeypatch.delenv("HTTP_PORTS")
    else:
        monkeypatch.setenv(f"HTTP_{key}", value)
    with pytest.raises(InvalidValue) as caught:
        PoolSpec.from_env("HTTP")
    assert caught.value.name == f"HTTP_{key}"
    assert f"HTTP_{key}" in str(caught.value)
    assert isinstance(caught.value, CommandRejected)
    assert isinstance(caught.value, ValueError)


def test_a_prefix_that_makes_no_name(monkeypatch):
    monkeypatch.setenv("MY/POOL_PORTS", "1")
    with pytest.raises(InvalidValue) as caught:
        PoolSpec.from_env("MY/POOL")
    assert caught.value.name == "MY/POOL_NAME"


# ---------------------------------------------------------------------- pools side by side


def test_two_pools_with_a_port_in_common():
    check_overlaps([PoolSpec("a", ports="1-5,10"), PoolSpec("b", ports="6-9,11")])
    for other in ("5", "10", "3-20", "1-65535"):
        with pytest.raises(InvalidValue, match="'a'") as caught:
            check_overlaps([PoolSpec("a", ports="1-5,10"), PoolSpec("c", ports="40"), PoolSpec("b", ports=other)])
        assert caught.value.name == "pools"


def test_one_pool_defined_twice():
    with pytest.raises(InvalidValue, match="twice"):
        check_overlaps([PoolSpec("a", ports="1-5"), PoolSpec("a", ports="6")])
