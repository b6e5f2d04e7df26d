"""The helpers that could let all the other tests pass, or be skipped, for no good reason."""

from __future__ import annotations

import pytest

from tests.witnesses.helpers import binary


def nowhere():
    raise ImportError("no such wheel")


def test_a_missing_binary_that_skips_where_it_must_not(monkeypatch):
    monkeypatch.delenv("PORTFSM_PROXIES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no noproxy on this machine"):
        binary("noproxy", nowhere)
    monkeypatch.setenv("PORTFSM_PROXIES", "required")
    with pytest.raises(ImportError):
        binary("noproxy", nowhere)


def test_a_named_binary_that_is_passed_over(monkeypatch, tmp_path):
    """Also one that is not there is no reason to take another, or to skip."""
    program = tmp_path / "program"
    program.touch(mode=0o755)
    monkeypatch.setenv("PORTFSM_NOPROXY", str(program))
    assert binary("noproxy", lambda: "other") == str(program)
    program.unlink()
    with pytest.raises(AssertionError, match="is no program"):
        binary("noproxy", lambda: "other")
