"""What the next reload reads, and what follows for a verdict: the file of ports and the state file."""

from __future__ import annotations

import os
import re

import pytest

from portfsm.evidence import Verdict
from portfsm.witnesses._haproxy_file import ConfigFile, PortsFile, StateFile
from portfsm.witnesses._haproxy_preflight import void
from portfsm.witnesses._haproxy_rules import Judgement, lasting
from tests.witnesses.answers import recorded
from tests.witnesses.record import BUSY, RESTING

CLEAR = Judgement(Verdict.CLEAR, "nobody has it")
TABLE = re.search(r"(?ms)^1\n# be_id .*?\n\n", recorded("worker"))[0]


def judged(state, port, *, host="127.0.0.1", said=CLEAR):
    return lasting(said, (host, port, 5), None, state)


def test_a_slot_of_a_state_file_that_is_overlooked(tmp_path):
    (tmp_path / "state").write_text(TABLE)
    found = StateFile(tmp_path / "state").slots()
    assert judged(found, BUSY).verdict is Verdict.HELD
    assert "the state file has a/busy in service there" in judged(found, BUSY).reason
    assert judged(found, RESTING) == judged(found, 29999) == CLEAR
    assert judged(found, BUSY, host="10.0.0.1") == CLEAR
    held = Judgement(Verdict.HELD, "worker 5 has it")
    assert judged(found, BUSY, said=held) is held


def test_a_slot_of_a_state_file_that_an_agent_puts_back(tmp_path):
    """In maintenance there, and its agent check is enabled."""
    watched = TABLE.replace("resting 127.0.0.1 0 5 1 1 0 1 0 0 8 0", "resting 127.0.0.1 0 5 1 1 0 1 0 0 8 22")
    assert watched != TABLE
    (tmp_path / "state").write_text(watched)
    assert judged(StateFile(tmp_path / "state").slots(), RESTING).verdict is Verdict.HELD


def test_a_file_for_each_backend_of_which_one_is_overlooked(tmp_path):
    (tmp_path / "a").write_text(TABLE)
    (tmp_path / "b").write_text("")
    (tmp_path / "c").write_text(TABLE.replace(f"- {BUSY} ", "- 28001 "))
    found = StateFile(tmp_path).slots()
    assert [judged(found, port).verdict for port in (BUSY, 28001, 28002)] == [Verdict.HELD, Verdict.HELD, Verdict.CLEAR]


def test_a_state_file_that_cannot_be_read_and_counts_as_empty(tmp_path):
    path = tmp_path / "state"
    state = StateFile(path)
    assert judged(state.slots(), BUSY) == CLEAR, "what is not there brings nothing back"
    for broken in ("garbage", TABLE[: len(TABLE) // 2], TABLE.replace("srv_port", "port"), TABLE + "\nx"):
        path.write_text(broken)
        said = judged(state.slots(), BUSY)
        assert (said.verdict, f"the state file {path} cannot be read" in said.reason) == (Verdict.HELD, True)
    path.write_text(TABLE)
    assert "in service there" in judged(state.slots(), BUSY).reason
    os.truncate(path, 17 << 20)
    assert "is larger than" in judged(state.slots(), BUSY).reason
    path.unlink()
    assert judged(state.slots(), BUSY) == CLEAR


def test_a_file_of_ports_that_was_replaced_and_is_not_read_again(tmp_path):
    path = tmp_path / "ports.cfg"
    file = PortsFile(path)
    assert file.generation() is None
    for generation in (5, 7, 6):
        path.with_suffix(".new").write_text(f"global\n    setenv GEN {generation}\n")
        path.with_suffix(".new").replace(path)
        assert file.generation() == generation
    assert PortsFile(tmp_path).generation() is None, "a directory may have a file of another time"
    path.unlink()
    assert file.generation() is None


def test_a_configuration_with_which_evidence_is_wrong(tmp_path):
    """Any file of it; what cannot be read may have such a line too."""
    (tmp_path / "1.cfg").write_text("global\n    setenv RELAY 0\nfrontend fe\n    bind :80\n")
    (tmp_path / "2.cfg").write_text("backend a\n    server x 10.0.0.1:80\n")
    (tmp_path / "3.txt").write_text("backend a\n    option persist\n")
    config = ConfigFile(tmp_path, void)
    assert config.trouble() == "", "what only costs time is no reason"
    for line in ("option persist", "dispatch 10.0.0.1:80", "retry-on 503", "server y host:80 resolvers dns"):
        (tmp_path / "2.cfg").write_text(f"backend a\n    {line}\n")
        assert f"in {tmp_path} there is `{line}`: " in config.trouble()
        said = lasting(CLEAR, ("127.0.0.1", 1, 5), None, config.trouble())
        assert (said.verdict, line in said.reason) == (Verdict.HELD, True)
    (tmp_path / "2.cfg").write_text("global\n    setenv RELAY 1\n")
    assert "frontend fe does not relay" in config.trouble()
    (tmp_path / "2.cfg").write_text("global\n    grace 5s\n")
    assert "`grace`" in config.trouble()
    (tmp_path / "2.cfg").unlink()
    assert config.trouble() == ""
    assert "cannot be read" in ConfigFile(tmp_path / "none", void).trouble()


@pytest.mark.parametrize(("generation", "verdict"), [(None, Verdict.CLEAR), (5, Verdict.CLEAR), (4, Verdict.HELD), (-1, Verdict.HELD)])
def test_a_file_that_is_older_than_the_release(generation, verdict):
    assert lasting(CLEAR, ("127.0.0.1", 1, 5), generation, {}).verdict is verdict
