"""What the configuration must carry for evidence to be right, and what is said where it does not."""

from __future__ import annotations

import re

import attrs
import pytest

from portfsm.witnesses._haproxy_answers import read_listing
from portfsm.witnesses._haproxy_preflight import examine
from tests.witnesses.answers import process, recorded

GOOD = """
global
    setenv GEN 417
    setenv RELAY 1
    description GEN=417 RELAY=1   # both
    hard-stop-after 60s
defaults
    retry-on conn-failure
frontend fe
    bind :80
    use_backend relay if { stopping }
    use_backend x if { path /x }
backend relay
    server self 127.0.0.1:80
"""
DESCRIBED = re.sub(r"description: .*", "description: GEN=417 RELAY=1", recorded("worker"))


def found(text: str | None = GOOD, *, answer: str = DESCRIBED, version: str = "2.8.25-x", **options) -> list[str]:
    listing = attrs.evolve(read_listing(recorded("listing")), version=version)
    result = examine(listing, [(process("worker"), answer)], text, "not given", **options)
    assert all(finding.why and finding.add for finding in result.findings)
    assert result.ready == (not result.findings)
    assert bool(result.unchecked) == (text is None)
    return [finding.what for finding in result.findings]


def test_a_good_configuration_that_is_found_wanting():
    assert found() == []
    assert found(None) == []
    assert found(version="3.2.1") == []
    assert found(GOOD + "listen stats\n    bind :81\n    stats enable\n") == []
    assert found(GOOD.replace("conn-failure", "503"), retries_replies=True) == []
    assert found(GOOD.replace("retry-on conn-failure", "load-server-state-from-file global"), restores=True) == []


@pytest.mark.parametrize(
    ("was", "becomes", "what"),
    [
        ("hard-stop-after 60s", "", "no hard-stop-after"),
        ("hard-stop-after", "# hard-stop-after", "no hard-stop-after"),
        ("hard-stop-after 60s", "hard-stop-after 60s\n    grace 5s", "grace"),
        ("retry-on conn-failure", "retry-on conn-failure 503", "retry-on conn-failure 503"),
        ("retry-on conn-failure", "option persist", "option persist"),
        ("retry-on conn-failure", "load-server-state-from-file global", "load-server-state-from-file global"),
        ("retry-on conn-failure", "dispatch 127.0.0.1:30000", "dispatch 127.0.0.1:30000"),
        ("retry-on conn-failure", "option transparent", "option transparent"),
        ("retry-on conn-failure", "server z 127.0.0.1:+10 check", "server z 127.0.0.1:+10 check"),
        ("retry-on conn-failure", "server-template z 2 127.0.0.1:-10", "server-template z 2 127.0.0.1:-10"),
        ("bind :80", "force-persist if { src 10.0.0.1 }", "force-persist if { src 10.0.0.1 }"),
        ("bind :80", "http-request set-dst src", "http-request set-dst src"),
        ("server self 127.0.0.1:80", "server s x:80 resolvers dns", "server s x:80 resolvers dns"),
        ("use_backend relay if { stopping }", "", "frontend fe does not relay"),
        ("use_backend relay if { stopping }", "use_backend y\n    use_backend relay if { stopping }", "frontend fe does not relay"),
        ("\nbackend relay", "\nlisten other\n    bind :81\n    server y :82\nbackend relay", "listen other does not relay"),
    ],
)
def test_a_line_that_voids_all_evidence_and_is_not_seen(was, becomes, what):
    assert found(GOOD.replace(was, becomes, 1)) == [what]


def test_a_proxy_that_is_too_old_or_says_nothing():
    assert found(version="2.4.9") == ["version 2.4.9"]
    assert found(version="next") == ["version next"]
    assert found(answer="Permission denied\n") == [f"worker {process('worker')} cannot be read"]
    unset = re.sub(r"description: .*", "description: ", recorded("worker")).replace("\n\nGEN=417", "\n\nVariable not found")
    assert found(answer=unset) == ["no generation"]
    assert found(answer=DESCRIBED.replace("RELAY=1", "RELAY=0")) == ["no relay promise"]
