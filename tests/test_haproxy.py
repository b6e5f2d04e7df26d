"""The file that a controller writes for HAProxy: what is in it, and that it is never half there and never goes back."""

from __future__ import annotations

import os
import pickle

import pytest

from portfsm.errors import InvalidValue, ReloadFailed, StaleGeneration
from portfsm.haproxy import render, write
from portfsm.values import Lease


def lease(port, *, service="web", node="", pool="http") -> Lease:
    return Lease(pool, node, port, f"owner-{port}", service, port, 0)


# ---------------------------------------------------------------------- what is in it


def test_a_lease_that_is_left_out_or_put_elsewhere():
    leases = [lease(102), lease(101, node="n1"), lease(103, service=""), lease(104, service="api", node="six")]
    text = render(leases, generation=7, host_of=lambda node: {"n1": "10.0.0.1", "six": "::1"}.get(node, "127.0.0.1"))
    assert text == (
        "global\n    setenv GEN 7\n    setenv RELAY 0\n    description GEN=7 RELAY=0\n\n"
        "backend api\n    option redispatch 1\n    server six-104 [::1]:104\n\n"
        "backend http\n    option redispatch 1\n    server p-103 127.0.0.1:103\n\n"
        "backend web\n    option redispatch 1\n    server p-102 127.0.0.1:102\n    server n1-101 10.0.0.1:101\n\n"
    )


def test_a_service_that_loses_its_backend_with_its_last_lease():
    text = render([], generation=0, services=["web"], relay="127.0.0.1:80", lines=["balance leastconn"])
    assert "backend web\n    balance leastconn\n" in text
    assert "backend relay\n    server self 127.0.0.1:80\n" in text
    assert "setenv RELAY 1" in text
    assert "RELAY=1" in text


@pytest.mark.parametrize("service", ["a b", "a\nglobal", "relay", "x" * 201, "ä", "a;quit", "#"])
def test_a_name_that_writes_its_own_configuration(service):
    with pytest.raises(InvalidValue, match="choose another"):
        render([lease(1, service=service)], generation=1)
    with pytest.raises(InvalidValue, match="choose another"):
        render([], services=[service], generation=1)


@pytest.mark.parametrize("node", ["n 1", "n\n"])
def test_a_node_that_writes_its_own_configuration(node):
    with pytest.raises(InvalidValue):
        render([lease(1, node=node)], generation=1, host_of=lambda node: "h")


@pytest.mark.parametrize("host", ["", "h\n    server x y", "a b", "h#"])
def test_a_host_that_writes_its_own_configuration(host):
    with pytest.raises(InvalidValue, match="host"):
        render([lease(1)], generation=1, host_of=lambda node: host)


@pytest.mark.parametrize("generation", [-1, 1.5, "7", None, True])
def test_a_generation_that_is_none(generation):
    with pytest.raises(InvalidValue, match=r"manager\.seq"):
        render([], generation=generation)


# ---------------------------------------------------------------------- how it is written


def test_a_file_that_goes_back(tmp_path):
    path = tmp_path / "ports.cfg"
    write(path, render([], generation=5))
    write(path, render([lease(1)], generation=5))
    write(path, render([], generation=6))
    with pytest.raises(StaleGeneration, match="render it again") as error:
        write(path, render([lease(1)], generation=5))
    assert (error.value.path, error.value.generation, error.value.current) == (str(path), 5, 6)
    assert path.read_text() == render([], generation=6)
    assert os.listdir(tmp_path) == ["ports.cfg"]


def test_a_file_without_a_stamp(tmp_path):
    path = tmp_path / "ports.cfg"
    with pytest.raises(InvalidValue, match="make it with render"):
        write(path, "global\n")
    path.write_text("# by hand\n")
    path.chmod(0o640)
    write(path, render([], generation=0))
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failed_write_that_leaves_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "ports.cfg"
    write(path, render([], generation=5))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, render([], generation=6))
    assert path.read_text() == render([], generation=5)
    assert os.listdir(tmp_path) == ["ports.cfg"]


@pytest.mark.parametrize("error", [StaleGeneration("x", path="p", generation=1, current=2), ReloadFailed("x", generation=1, running=None)])
def test_an_error_that_loses_its_facts_between_processes(error):
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
