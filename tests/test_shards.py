"""Which shard a node belongs to: the same answer everywhere and for ever, even shares, and few moves when shards come or go."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfsm import InvalidValue, moved_nodes, shard_of

SHARDS = [f"shard-{number}" for number in range(8)]
NODES = [f"node-{number:05d}" for number in range(4000)]
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("node", "shard"),
    [
        ("", "shard-5"),
        ("node-a", "shard-7"),
        ("node-b", "shard-7"),
        ("node-00001", "shard-6"),
        ("10.0.0.17", "shard-0"),
        ("ip-10-0-3-4.eu-west-1.compute.internal", "shard-5"),
        ("knöten-ü", "shard-7"),
        ("日本", "shard-2"),
        ("x" * 256, "shard-1"),
    ],
)
def test_a_node_wakes_up_in_another_shard_after_an_update(node, shard):
    """These answers are part of the format: two controllers of different versions must agree."""
    assert shard_of(node, SHARDS) == shard


def test_the_answers_depend_on_the_process():
    program = "from portfsm import shard_of; print(*(shard_of(f'n{i}', ['a', 'b', 'c']) for i in range(40)))"
    found = {
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert found == {" ".join(shard_of(f"n{number}", ["a", "b", "c"]) for number in range(40)) + "\n"}


@given(names, st.lists(names, min_size=1, max_size=8, unique=True), st.randoms())
def test_the_order_of_the_shards_matters(node, shards, dice):
    shuffled = list(shards)
    dice.shuffle(shuffled)
    assert shard_of(node, shards) == shard_of(node, iter(shuffled))


@given(st.lists(names, max_size=40, unique=True), st.lists(names, min_size=2, max_size=8, unique=True))
def test_a_new_shard_moves_a_node_between_two_old_ones(nodes, shards):
    *before, new = shards
    moves = moved_nodes(nodes, before, shards)
    assert {there for _, there in moves.values()} <= {new}
    assert moves.keys() == {node for node in nodes if shard_of(node, shards) == new}
    assert moved_nodes(nodes, shards, before) == {node: (there, here) for node, (here, there) in moves.items()}
    assert not moved_nodes(nodes, shards, reversed(shards))


def test_one_shard_gets_more_than_its_share():
    counts = Counter(shard_of(node, SHARDS) for node in NODES)
    mean = len(NODES) / len(SHARDS)
    assert set(counts) == set(SHARDS)
    assert all(0.85 * mean < count < 1.15 * mean for count in counts.values()), counts


def test_names_that_run_together_share_a_score():
    """ "a" + "bc" and "ab" + "c" are different pairs."""
    pairs = [(shard_of(f"{number}1", ["s", f"s{number}"]) == "s") for number in range(200)]
    assert 60 < sum(pairs) < 140


def test_a_pinned_node_moves():
    moves = moved_nodes(NODES, SHARDS[:-1], SHARDS)
    pins = {node: here for node, (here, _) in moves.items()}
    for node in NODES[:500]:
        assert shard_of(node, SHARDS, pinned=pins) == shard_of(node, SHARDS[:-1])
    node, (here, there) = moves.popitem()
    del pins[node]
    assert shard_of(node, SHARDS, pinned=pins) == there != here


@pytest.mark.parametrize(
    ("node", "shards", "pinned"),
    [
        ("a", [], None),
        ("a", ["s", "s"], None),
        ("a", ["s", ""], None),
        ("a", "shard", None),
        ("a", [1, 2], None),
        ("a\n", ["s"], None),
        ("x" * 257, ["s"], None),
        (None, ["s"], None),
        ("a", ["s\0"], None),
        ("a", ["s"], {"a": "gone"}),
    ],
)
def test_junk_is_mapped_somewhere(node, shards, pinned):
    with pytest.raises(InvalidValue):
        shard_of(node, shards, pinned=pinned)
