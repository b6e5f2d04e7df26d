import pytest

from portfsm import _table
from portfsm.states import PORT_KINDS, EventKind, PortState

CONTRACT = """
|             | allocated | adopted   | withdrawn | released    | held        | freed | blocked | unblocked   |
| FREE        | ALLOCATED | ALLOCATED | –         | –           | QUARANTINED | –     | BLOCKED | –           |
| ALLOCATED   | –         | –         | ALLOCATED | QUARANTINED | –           | –     | BLOCKED | –           |
| QUARANTINED | ALLOCATED | ALLOCATED | –         | –           | QUARANTINED | FREE  | BLOCKED | –           |
| BLOCKED     | –         | ALLOCATED | –         | –           | –           | –     | –       | QUARANTINED |
"""


def _cells(text):
    """(row, column) -> what stands there, of a Markdown table; footnote marks and bold dropped."""
    rows = [[cell.strip(" *¹²") for cell in line.strip("| ").split("|")] for line in text.strip().splitlines() if "---" not in line]
    columns = text.strip().splitlines()[0].strip().strip("|").split("|")[1:]
    return {(row[0], column.strip()): cell for row in rows[1:] for column, cell in zip(columns, row[1:], strict=True)}


def test_a_cell_that_differs_from_the_contract():
    expected = {cell: after for cell, after in _cells(CONTRACT).items() if after in PortState.__members__}
    assert {(before.value, kind.value): after.value for (before, kind), after in _table.TRANSITIONS.items()} == expected
    assert len(expected) == 14


def test_a_table_that_a_user_can_change():
    with pytest.raises(TypeError):
        _table.TRANSITIONS[PortState.ALLOCATED, EventKind.FREED] = PortState.FREE


def test_a_way_to_free_without_quarantine():
    """A port freed by one service went to another while the load balancer still had it (aws/amazon-ecs-agent#500)."""
    assert [cell for cell, after in _table.TRANSITIONS.items() if after is PortState.FREE] == [(PortState.QUARANTINED, EventKind.FREED)]


def test_a_state_nobody_leaves_or_reaches():
    assert {before for before, _ in _table.TRANSITIONS} == set(PortState) == set(_table.TRANSITIONS.values())


def test_a_kind_without_a_cell_or_a_cell_of_a_kind_that_concerns_no_port():
    assert {kind for _, kind in _table.TRANSITIONS} == set(PORT_KINDS)


def test_a_rendered_table_that_differs_from_the_machine():
    assert _cells(_table.table()) == _cells(CONTRACT)


def test_a_footnote_lost_from_the_rendered_table():
    rows = {line.split("|")[1].strip(" *"): line for line in _table.table().splitlines()}
    assert "ALLOCATED ²" in rows["ALLOCATED"]
    assert "ALLOCATED ¹" in rows["QUARANTINED"]
    assert _table.table().count("¹") == _table.table().count("²") == 1


def test_a_ragged_table():
    assert {line.count("|") for line in _table.table().splitlines()} == {len(PORT_KINDS) + 2}


def test_a_diagram_that_differs_from_the_machine():
    head, start, *arrows = _table.mermaid().splitlines()
    assert (head, start.strip()) == ("stateDiagram-v2", "[*] --> FREE")
    assert {arrow.strip() for arrow in arrows} == {
        f"{before.value} --> {after.value}: {kind.value}" for (before, kind), after in _table.TRANSITIONS.items()
    }


def test_a_word_on_disk_that_changed():
    """The values are in every log there is."""
    assert [kind.value for kind in EventKind] == [
        "allocated", "adopted", "withdrawn", "released", "held", "freed", "blocked", "unblocked",
        "opened", "pool_defined", "proxy_joined", "proxy_left", "closed",
    ]  # fmt: skip
    assert [state.value for state in PortState] == ["FREE", "ALLOCATED", "QUARANTINED", "BLOCKED"]
