"""The command line on a log in etcd."""

from __future__ import annotations

import json

import anyio
import pytest

from portfsm.cli._main import run
from portfsm.journals._etcd_wire import put
from portfsm.journals.etcd import EtcdJournal
from portfsm.manager import open_manager
from tests.etcd.behind import change
from tests.etcd.leader import SPEC


@pytest.fixture
def log(url: str) -> str:
    """Three leases, one of them released."""

    async def write() -> None:
        async with open_manager(url, pools=[SPEC]) as manager:
            leases = [await manager.allocate("http", owner=f"replica-{number}") for number in range(3)]
            await manager.release(leases[1])

    anyio.run(write)
    return url


def test_a_reading_command_does_not_know_etcd(log, capsys):
    for command in (("status", log), ("log", log), ("history", log, "30001"), ("explain", log, "30001")):
        assert run([*command, "--json"]) == 0, command
        assert "30001" in capsys.readouterr().out


def test_a_head_kept_elsewhere_is_not_found_again(log, capsys):
    assert run(["head", log]) == 0
    head = capsys.readouterr().out.strip()
    anyio.run(lambda: reopen(log))
    assert run(["verify", log, "--expect", head]) == 0
    assert "as expected" in capsys.readouterr().out
    assert run(["verify", log, "--expect", head[:-1] + ("0" if head[-1] != "0" else "1")]) == 1


async def reopen(url: str) -> None:
    async with open_manager(url):
        pass


def test_an_edited_log_verifies(log, capsys):
    journal = EtcdJournal.from_url(log)
    shelf = journal.shelf()
    name = shelf.names()[0]
    offset, data = shelf.parts(name)[1]
    change(journal, put(shelf.keys.piece(name, offset), data.replace(b"replica", b"replicb")))
    assert run(["verify", log, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in found["checks"] if check["mark"] == "FAIL"] == ["bytes"]


def test_a_seal_that_was_made_anew_passes_for_the_old_one(log, capsys):
    """Every line proves, and the SHA-256 in the seal does not."""
    journal = EtcdJournal.from_url(log)
    shelf = journal.shelf()
    name = shelf.names()[0]
    offset, data = shelf.parts(name)[-1]
    from portfsm._codec import Encoder, Seal, decode_mark

    seal = decode_mark(data, "here")
    assert isinstance(seal, Seal)
    before = b"".join(part for _, part in shelf.parts(name)[:-1])
    forged = Encoder(before[-17:]).encode_line(Seal(seal.count, seal.last, "0" * 64))
    change(journal, put(shelf.keys.piece(name, offset), forged))
    assert run(["verify", log]) == 1
    assert "SHA-256" in capsys.readouterr().out


def test_a_preparation_that_etcd_does_not_need_fails(url, log, capsys):
    assert run(["init", log]) == 0
    assert "is there" in capsys.readouterr().out
    assert run(["init", url + "-new"]) == 0
    assert "nothing to prepare" in capsys.readouterr().out


def test_the_operators_hand_is_let_in_while_a_controller_leads(log, capsys):
    journal = EtcdJournal.from_url(log)
    journal.open("controller")
    assert run(["block", log, "30007", "--reason", "broken"]) == 2
    assert "controller" in capsys.readouterr().err
    journal.close()
    assert run(["block", log, "30007", "--reason", "broken"]) == 0
    assert run(["repair", log]) == 2
